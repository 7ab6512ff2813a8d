"""hyperpyyaml as data."""

from pathlib import Path

import pytest

from edgepack.errors import IntegrityError, UsageError
from edgepack.model.checkpoint import yaml
from edgepack.model.checkpoint.yaml import Tagged


def load(folder: Path, text: str) -> dict[str, object]:
    path = folder / "cosyvoice2.yaml"
    path.write_text(text, "utf-8")
    return yaml.load(path)


def test_references_and_arithmetic(tmp_path: Path) -> None:
    tree = load(
        tmp_path,
        """
chunk: 25
ratio: 2
double: !ref <chunk> * <ratio>
half: !ref (<chunk> + 1) / 2
alias: !ref <section[inner]>
section: {inner: [1, 2]}
text: !ref <chunk>/<ratio>.wav
chained: !ref <double> + 1
""",
    )
    assert tree["double"] == 50
    assert tree["half"] == 13.0
    assert tree["alias"] == [1, 2]
    assert tree["text"] == "25/2.wav"
    assert tree["chained"] == 51


def test_tags_are_data(tmp_path: Path) -> None:
    tree = load(
        tmp_path,
        """
width: 80
flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithXvec
  output_size: !ref <width>
  sampling: !name:cosyvoice.utils.common.ras_sampling
    top_p: 0.8
seed: !apply:torch.manual_seed [1986]
""",
    )
    flow = tree["flow"]
    assert isinstance(flow, Tagged)
    assert flow.target == "cosyvoice.flow.flow.CausalMaskedDiffWithXvec"
    assert flow.value["output_size"] == 80
    assert flow.value["sampling"] == Tagged(
        "name", "cosyvoice.utils.common.ras_sampling", {"top_p": 0.8}
    )
    assert tree["seed"] == Tagged("apply", "torch.manual_seed", [1986])


@pytest.mark.parametrize(
    "line",
    [
        "x: !apply:os.system ['touch executed']",
        "x: !apply:subprocess.run [[touch, executed]]",
        "x: !new:subprocess.Popen [[touch, executed]]",
        "x: !name:os.system",
        "x: !module:os",
        "x: !!python/object/apply:os.system ['touch executed']",
        "x: !!python/name:os.system",
        "x: !include:other.yaml",
        "a: {b: [!apply:builtins.eval ['1']]}",
    ],
)
def test_other_tags_are_refused(tmp_path: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IntegrityError, match="unsafe: line 1"):
        load(tmp_path, line)
    assert not (tmp_path / "executed").exists()


def test_arithmetic_does_not_call(tmp_path: Path) -> None:
    tree = load(tmp_path, "a: 1\nx: !ref __import__('os').system('echo <a>')")
    assert tree["x"] == "__import__('os').system('echo 1')"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: !ref <a>", "itself"),
        ("a: !ref <b>\nb: !ref <a>", "itself"),
        ("a: !ref <missing>", "nothing"),
        ("a: [1", "not valid YAML"),
        ("- 1", "not a mapping"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="nested"):
        load(tmp_path, "a: " + "[" * 5000 + "]" * 5000)


def test_large_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="larger than 32 KiB"):
        load(tmp_path, "a: " + "x" * (32 << 10))
