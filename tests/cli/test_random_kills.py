"""Signals at random points of commands: the old or the new is there, whole, and nothing besides.

Which signal, whom it reaches and when are drawn from a seed; EDGEPACK_KILLS=200 draws 200 points
in all, not 40. `-s` shows what they met.
"""

import hashlib
import json
import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import killing
import numpy as np
import pytest
import random_cosyvoice2
import random_weights
from support import GOLDEN, Build, Checkpoints

from edgepack.bundle.bundle import open_bundle
from edgepack.machine.cpu import tuned

POINTS = int(os.environ.get("EDGEPACK_KILLS", "40")) // 4  # of each command
RECORDING = GOLDEN / "common" / "prompt_24k.wav"
LITTLE = ["--format", "ort", "--precision", "fp16"]
INTERRUPTED = 5
LAST = 10  # changes, in which things get their names


@dataclass(frozen=True)
class Case:
    """A command on a folder with `before` in it, and the state of what it writes: a short name.

    `state` raises an error for what is not whole. "new" stands for whatever new is valid, where
    two runs do not give the same bytes.
    """

    before: Path
    arguments: Callable[[Path], Sequence[object]]
    state: Callable[[Path], str]


def tree(folder: Path) -> str:
    """A name for all that is in a folder, byte for byte; "none" if there is no folder."""
    if not folder.exists():
        return "none"
    bundle = open_bundle(folder)
    bundle.check(bundle.manifest.files)
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(f"{path.relative_to(folder)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"")
    for measured in folder.parent.glob("*.build.json"):
        json.loads(measured.read_text("utf-8"))
    return digest.hexdigest()[:16]


def listed(folder: Path) -> str:
    """The same for what a bundle's manifest lists."""
    bundle = open_bundle(folder)
    bundle.check(bundle.manifest.files)
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()[:16]


def sound(folder: Path) -> str:
    return hashlib.sha256((folder / "out.wav").read_bytes()).hexdigest()[:16]


def plan(folder: Path) -> str:
    """The tuned plan beside a bundle; "new" if it is a plan for a machine that exists."""
    found = (folder / "b.tuned.json").read_bytes()
    plans = json.loads(found)
    return "new" if all(set(p) == set(tuned.TunedPlan.__struct_fields__) for p in plans) else "old"


@pytest.fixture
def case(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    bundle: Build,
    checkpoints: Checkpoints,
    monkeypatch: pytest.MonkeyPatch,
) -> Case:
    """The command of a name, with what it finds."""
    before = tmp_path / "before"
    before.mkdir()
    if request.param == "voice add":
        shutil.copytree(bundle("tiny"), before / "b")
        return Case(
            before,
            lambda f: ["voice", "add", f / "b", "anna", RECORDING, "--text", "good", "--force"],
            lambda f: listed(f / "b"),
        )
    if request.param == "run":
        (before / "out.wav").write_bytes(b"what was there")
        tiny = bundle("tiny")
        return Case(
            before,
            lambda f: ["run", tiny, "Good morning.", "-o", f / "out.wav", "--guard", "warn"],
            sound,
        )
    model = checkpoints("tiny")
    target = ["--target", "intel-cpu", *LITTLE]
    name = f"{Path(model).name}-intel-cpu"
    if request.param == "tune":
        built = tmp_path / "built"
        built.mkdir()
        ended = _that_ends(tmp_path / "ending", monkeypatch)
        hook = tmp_path / "no-hook"
        done = killing.run(_hook(hook), ["build", ended, *target, "-o", built], tmp_path / "none")
        assert done.code == 0, done.lines
        shutil.copytree(built / "ending-intel-cpu", before / "b")
        (before / "b.tuned.json").write_text("[{}]")
        few = ["--sentences", "1", "--rounds", "1", "--energy", "none"]
        return Case(before, lambda f: ["tune", f / "b", *few], plan)
    again = ["--force"] if request.param == "build --force" else []
    if again:
        shutil.copytree(bundle("tiny"), before / name)
    return Case(
        before, lambda f: ["build", model, *target, "-o", f, *again], lambda f: tree(f / name)
    )


def _that_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny checkpoint whose language model ends an utterance before it is too long."""
    drawn = random_weights.values

    def values(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
        found = drawn(name, shape, seed)
        if name == "llm_decoder.bias":
            found[random_cosyvoice2.TINY.speech] = 4
        return found

    monkeypatch.setattr(random_weights, "values", values)
    tokenizer = random_cosyvoice2.DEMO / "CosyVoice-BlankEN"
    random_cosyvoice2.write(folder, random_cosyvoice2.TINY, tokenizer)
    return folder


def _hook(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(killing.HOOK)
    return folder


def drawn(chance: random.Random, seconds: float, changes: int) -> killing.Shot:
    """A signal, whom it reaches, when: at a change, at one of the last, or at any time of a run."""
    number = chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    alone = chance.random() < 0.5
    first = chance.choice([1, max(1, changes - LAST), None])
    if first:
        return killing.Shot(number, alone, change=chance.randint(first, changes))
    when = chance.uniform(0, seconds)
    return killing.Shot(number, alone, seconds=when, begun=number != signal.SIGKILL)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def survives(case: Case, tmp_path: Path, points: int, seed: str) -> None:
    """Every point: a fresh folder, a shot, the state, a run without one, and what is left."""
    hooked, watched = _hook(tmp_path / "hook"), tmp_path / "work"
    variables = {"XDG_CACHE_HOME": str(watched / "cache"), "TMPDIR": str(watched / "temporary")}

    def fresh() -> list[object]:
        shutil.rmtree(watched, ignore_errors=True)
        shutil.copytree(case.before, watched)
        (watched / "temporary").mkdir()
        return list(case.arguments(watched))

    def end(shot: killing.Shot | None = None) -> killing.Outcome:
        return killing.run(hooked, case.arguments(watched), watched, shot, variables)

    fresh()
    old = case.state(watched)
    clean = end()
    assert clean.code == 0, clean.lines
    new, left = case.state(watched), names(watched)
    assert new != old
    chance = random.Random(seed)
    met: Counter[str] = Counter()
    longest = 0.0
    for _ in range(points):
        fresh()
        shot = drawn(chance, clean.seconds, clean.changes)
        shown = f"{shot} of {clean.changes} changes in {clean.seconds:.2f} s"
        ended = end(shot)
        state = case.state(watched)
        assert state in (old, new), shown
        meant = -shot.number if shot.number == signal.SIGKILL else INTERRUPTED
        assert ended.code in (0, meant), (shown, ended)
        assert ended.code != 0 or state == new, shown  # the signal came too late
        said = [line for line in ended.lines if not line.startswith("edgepack: warning: ")]
        if ended.code == INTERRUPTED:
            assert len(said) == 1, (shown, said)
            assert said[0].startswith("edgepack: interrupted"), (shown, said)
        elif ended.code == 0:
            assert said == [], (shown, said)
        after = end()
        assert after.code == 0, (shown, after)
        assert case.state(watched) == new, shown
        assert names(watched) == left, shown
        done = "too late" if ended.code == 0 else "old" if state == old else "new"
        met[f"{shot.number.name} {done}"] += 1
        longest = max(longest, ended.lasting)
    print(f"\n{seed}: {points} points, {dict(met)}, processes ended within {longest:.2f} s")
    assert sum(count for what, count in met.items() if "late" not in what) > points // 2


@pytest.mark.parametrize("case", ["voice add"], indirect=True)
def test_a_few_points(case: Case, tmp_path: Path) -> None:
    survives(case, tmp_path, 2, "voice")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "share"),
    [("build", 2), ("build --force", 2), ("voice add", 1), ("run", 1), ("tune", 1)],
    indirect=["case"],
    ids=["build", "build-force", "voice-add", "run", "tune"],
)
def test_many_points(
    case: Case, share: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    survives(case, tmp_path, POINTS // share, request.node.callspec.id)
