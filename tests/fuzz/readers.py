"""Each reader of files from outside, as a function of the content of one file.

A reader is made once a process with a folder of its own, in which the file gets the name it has in
a checkpoint or a bundle. It returns if the file is taken, and raises what the reader raises.
"""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from support import DATA

from fuzz import mutation
from fuzz.mutation import Change

Read = Callable[[bytes], object]

CORPUS = DATA / "fuzz"
SOURCE = DATA / "checkpoints" / "cosyvoice2-s2"
QWEN = "CosyVoice-BlankEN"
MACHINE = "0" * 16  # stands for the machine of a tuned plan


@dataclass(frozen=True)
class Reader:
    """How one is made, and how its files are changed.

    With `in_children` each input takes a process, and a run is a hundredth of the others'.
    """

    make: Callable[[Path], Read]
    change: Change = mutation.mixed
    in_children: bool = False


def touched(tree: Any) -> Any:
    """The tree, after reading the first and the last value of every array in it."""
    if isinstance(tree, np.ndarray) and tree.size:
        tree.flat[0], tree.flat[-1]
    elif isinstance(tree, dict):
        for value in tree.values():
            touched(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            touched(value)
    return tree


def _at(folder: Path, name: str, read: Callable[[Path], object]) -> Read:
    """A reader of a path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)

    def reader(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return reader


def _torch_zip(folder: Path) -> Read:
    from edgepack.model.checkpoint import torch_zip

    def read(path: Path) -> object:
        tree = touched(torch_zip.load(path))
        torch_zip.check(path)
        return tree

    return _at(folder, "llm.pt", read)


def _pickle(folder: Path) -> Read:
    from edgepack.model.checkpoint import pickle_program

    def storage(key: str, dtype: np.dtype[Any], count: int) -> np.ndarray:
        return np.zeros(min(max(count, 0), 64), dtype)

    return lambda data: touched(pickle_program.run(data, storage))


def _safetensors(folder: Path) -> Read:
    from edgepack.model.checkpoint import safetensors

    return _at(folder, "flow.safetensors", lambda path: touched(safetensors.load(path)))


def _checkpoint(folder: Path, name: str, read: Callable[[Any], object]) -> Read:
    """A reader of a checkpoint in which one file is another, with the seeds as the others."""
    from edgepack.model.checkpoint.folder import Checkpoint

    (folder / QWEN).mkdir()
    shutil.copyfile(SOURCE / "cosyvoice2.yaml", folder / "cosyvoice2.yaml")
    shutil.copyfile(SOURCE / QWEN / "config.json", folder / QWEN / "config.json")
    if name != f"{QWEN}/tokenizer.json":
        for seeds in ("vocabulary", "merges", "added_tokens"):
            for file in (CORPUS / seeds).iterdir():
                shutil.copyfile(file, folder / QWEN / file.name)
    return _at(folder, name, lambda path: read(Checkpoint(folder, "cosyvoice2.yaml")))


def _yaml(folder: Path) -> Read:
    from edgepack.model.family import recognise

    def read(checkpoint: Any) -> object:
        _, family = recognise(checkpoint)
        return family.host(checkpoint)

    return _checkpoint(folder, "cosyvoice2.yaml", read)


def _config(folder: Path) -> Read:
    from edgepack.model.families.cosyvoice2 import FAMILY

    return _checkpoint(folder, f"{QWEN}/config.json", FAMILY.text_rows)


def _speakers(folder: Path) -> Read:
    from edgepack.bundle.voices import Voice
    from edgepack.model.families.cosyvoice2 import FAMILY

    def read(checkpoint: Any) -> object:
        found: Mapping[str, Voice] = FAMILY.voices(checkpoint)
        return [voice.to_bytes() for voice in found.values()]

    reader = _checkpoint(folder, "spk2info.pt", read)
    demo = Path(__file__).parents[2] / "edgepack" / "demo_voice"
    shutil.copyfile(demo / "cosyvoice2.yaml", folder / "cosyvoice2.yaml")
    shutil.copyfile(demo / QWEN / "config.json", folder / QWEN / "config.json")
    return reader


def _tokenizer(name: str) -> Callable[[Path], Read]:
    def make(folder: Path) -> Read:
        from edgepack.model.checkpoint import tokenizer

        return _checkpoint(
            folder, f"{QWEN}/{name}", lambda found: tokenizer.build(found, QWEN, ["<y>"], 64)
        )

    return make


def _recipe(folder: Path) -> Read:
    from edgepack.builder.choices import read_choices

    return _at(folder, "recipe.yaml", lambda path: read_choices(path).identity())


def _solver(folder: Path) -> Read:
    from edgepack.builder.choices import read_solvers

    return _at(folder, "solver.json", lambda path: read_solvers(path, ["ort"]))


def _manifest(folder: Path) -> Read:
    from edgepack.bundle.bundle import open_bundle

    return _at(folder, "manifest.json", lambda path: open_bundle(path.parent).runtimes())


def _member(folder: Path, name: str | None, read: Callable[[Any], object]) -> Read:
    """A reader of the seeds' bundle in which one file is another, with the right hash.

    Without a name it is that of a voice.
    """
    from msgspec.structs import replace

    from edgepack.bundle.bundle import Bundle, open_bundle, stored
    from edgepack.bundle.manifest import StoredFile

    whole = open_bundle(CORPUS / "manifest").manifest
    selftest = CORPUS / "selftest" / whole.self_test
    shutil.copyfile(selftest, folder / whole.self_test)
    name = name or "voices/a.safetensors"
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    files = {**whole.files, whole.self_test: stored(selftest)}
    manifest = replace(
        whole, normalizers={}, voices={"a": name} if "voices" in name else {}, default_voice=""
    )

    def reader(data: bytes) -> object:
        path.write_bytes(data)
        file = StoredFile(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        return read(Bundle(folder, replace(manifest, files={**files, name: file})))

    return reader


def _voice(folder: Path) -> Read:
    from edgepack.bundle import voices
    from edgepack.runtime import fit

    def read(bundle: Any) -> object:
        _, voice = voices.read(bundle, None)
        fit.require_voice(bundle, voice, fit.widths(bundle, fit.recorded(bundle)), "voice")
        return voice

    return _member(folder, None, read)


def _selftest(folder: Path) -> Read:
    from edgepack.verification import selftest

    return _member(folder, selftest.FILE, selftest.read)


def _exam(folder: Path) -> Read:
    from edgepack.verification import evaluation

    return _member(folder, evaluation.FILE, evaluation.of)


def _trajectories(folder: Path) -> Read:
    from edgepack.verification import trajectories

    def read(bundle: Any) -> object:
        trajectories.read(bundle.path(trajectories.FILE))
        return trajectories.of(bundle)

    return _member(folder, trajectories.FILE, read)


def _rows(folder: Path) -> Read:
    from edgepack.runtime.trimmed import kept_rows

    return _member(folder, "vocabulary.safetensors", kept_rows)


def _frontend(folder: Path) -> Read:
    from edgepack.runtime import fit
    from edgepack.runtime.loading import open_frontend

    def read(bundle: Any) -> object:
        frontend = open_frontend(bundle)
        fit.require_fit(bundle, frontend.tokenizer)
        return frontend.ids("ab 你好 12 <|endofprompt|>\n")

    return _member(folder, "tokenizer.json", read)


def _text(folder: Path) -> Read:
    from edgepack.runtime.text.front_end import Frontend
    from edgepack.runtime.text.normalization import Normalization
    from edgepack.runtime.text.normalization import Reader as Language

    languages = {code: Language("cldr", code) for code in ("de", "ru", "ko", "fr", "es", "it")}
    normalize = Normalization(languages)
    path = CORPUS / "frontend" / "tokenizer.json"
    frontend = Frontend.open(path, "<|endofprompt|>", normalize)
    return lambda data: frontend.utterances(data.decode("utf-8", "surrogateescape"))


def _grammar(folder: Path) -> Read:
    from edgepack.runtime.text.normalizers import _wfst_trial

    return _at(folder, "tagger.fst", lambda path: _wfst_trial.check("zh", [path, path]))


def _recording(folder: Path) -> Read:
    from edgepack.runtime.audio import waveform

    return _at(folder, "recording.wav", lambda path: waveform.read(path).at(16000))


def _tuned(folder: Path) -> Read:
    from edgepack.machine.cpu import topology, tuned

    machine = topology.read()
    tuned.fingerprint = lambda machine: MACHINE
    (folder / "x").mkdir()
    return _at(folder, "x.tuned.json", lambda _: tuned.read(folder / "x", machine, "ort"))


def _bench(folder: Path) -> Read:
    from edgepack.bench import result

    return _at(folder, "result.json", result.read)


def _gpu(folder: Path) -> Read:
    from edgepack.runtime.gpu import description

    return lambda data: description.parse(data, folder / description.FILE)


READERS: Mapping[str, Reader] = {
    "torch_zip": Reader(_torch_zip, mutation.archive),
    "pickle": Reader(_pickle),
    "safetensors": Reader(_safetensors, mutation.safetensors),
    "speakers": Reader(_speakers, mutation.archive),
    "yaml": Reader(_yaml),
    "config": Reader(_config, mutation.document),
    "vocabulary": Reader(_tokenizer("vocab.json"), mutation.document),
    "merges": Reader(_tokenizer("merges.txt")),
    "added_tokens": Reader(_tokenizer("tokenizer_config.json"), mutation.document),
    "tokenizer": Reader(_tokenizer("tokenizer.json"), mutation.document),
    "recipe": Reader(_recipe),
    "solver": Reader(_solver, mutation.document),
    "manifest": Reader(_manifest, mutation.manifest),
    "voice": Reader(_voice, mutation.safetensors),
    "selftest": Reader(_selftest, mutation.safetensors),
    "exam": Reader(_exam, mutation.safetensors),
    "trajectories": Reader(_trajectories, mutation.safetensors),
    "rows": Reader(_rows, mutation.safetensors),
    "frontend": Reader(_frontend, mutation.document),
    "text": Reader(_text),
    "grammar": Reader(_grammar, in_children=True),
    "recording": Reader(_recording),
    "tuned": Reader(_tuned, mutation.document),
    "bench": Reader(_bench, mutation.document),
    "gpu": Reader(_gpu, mutation.document),
}
