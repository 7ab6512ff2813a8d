"""`edgepack build`."""

import re
import shutil
from pathlib import Path

import pytest
from support import Checkpoints

from cli import Cli, contents

STAGES = {
    "speech_lm", "text_embedding", "speech_embedding", "flow_encoder", "flow_time",
    "flow_estimator", "hift_source", "hift",
}  # fmt: skip


@pytest.fixture
def tiny(checkpoints: Checkpoints) -> str:
    return checkpoints("tiny")


@pytest.mark.slow
def test_a_dry_run_says_what_would_be_and_writes_nothing(cli: Cli, tiny: str) -> None:
    request = ("build", tiny, "-t", "intel-cpu", "-t", "linux-arm64", "-o", "out", "--dry-run")
    told = cli(*request)
    assert (told.code, told.err) == (0, "")
    assert told.out == (
        "out/tiny-intel-cpu: ort, openvino\nout/tiny-linux-arm64: ort\n"
        "estimated to take about 10 s\n"
    )
    document = cli(*request, "--json").document
    assert 1 < document["estimated_seconds"] < 60
    plans = document["plans"]
    assert [plan["target"] for plan in plans] == ["intel-cpu", "linux-arm64"]
    assert plans[0]["path"] == "out/tiny-intel-cpu"
    assert plans[0]["runtimes"] == ["ort", "openvino"]
    assert plans[0]["precision"] == {"default": "fp32"}
    assert cli(*request, "--quiet") == (0, "", "")
    assert contents(Path()) == {}


@pytest.mark.slow
def test_a_bundle_is_built_reused_and_replaced(cli: Cli, tiny: str) -> None:
    request = ("build", tiny, "-t", "intel-cpu", "--format", "ort")
    built = cli(*request, "--json")
    assert built.code == 0
    assert all(line.startswith("build: ") for line in built.err.splitlines())
    _, length, *steps = built.err.splitlines()
    assert re.fullmatch(r"build: 5 parts, estimated to take about \d0 s", length)
    parts = [re.match(r"build: \[0:0\d:\d\d\] (\d) of 5, about \d+ s left: ", s) for s in steps]
    assert all(parts), steps
    assert sorted({part[1] for part in parts if part}) == ["1", "2", "3", "5"]  # it has no voices
    assert re.search(
        rf" left: ort, network {len(STAGES)} of {len(STAGES)}: checking \w+$", steps[-1]
    )
    assert {step.split()[-1] for step in steps if ": checking " in step} == STAGES
    (told,) = built.document["bundles"]
    assert (told["path"], told["target"]) == ("bundles/tiny-intel-cpu", "intel-cpu")
    assert (told["language"], told["reused"], told["warnings"]) == ("all", False, [])
    assert set(told["seconds"]) == {"text", "networks", "reference", "voices", "ort"}
    assert set(told["stages"]) == STAGES
    for stage in told["stages"].values():
        variant = stage["runtimes"]["ort"]
        assert variant["precision"] == "fp32"
        assert variant["bytes"] > 0
        assert 0 <= variant["error"] <= variant["limit"]
    written = contents(Path("bundles/tiny-intel-cpu"))
    size = sum(map(len, written.values())) - len(written["manifest.json"])
    assert told["bytes"] == size

    assert cli(*request, "--quiet") == (0, "", "")
    assert cli(*request, "--json").document["bundles"][0]["reused"] is True
    assert contents(Path("bundles/tiny-intel-cpu")) == written

    other = (*request, "--precision", "fp16")
    refused = cli(*other)
    assert refused.code == 2
    assert "--force" in refused.message
    assert contents(Path("bundles/tiny-intel-cpu")) == written
    shown = cli(*other, "--force")
    assert shown.code == 0
    assert "fp16" in shown.out
    assert "bundles/tiny-intel-cpu built in" in shown.out
    assert len(contents(Path("bundles/tiny-intel-cpu"))["ort/speech_lm.onnx.data"]) < 0.6 * len(
        written["ort/speech_lm.onnx.data"]
    )


@pytest.mark.parametrize(
    ("file", "code"), [("llm.pt", 0), ("llm.rl.pt", 2), ("../tiny/llm.pt", 2), ("campplus.onnx", 2)]
)
def test_the_language_model_is_a_file_of_the_checkpoint(
    cli: Cli, tiny: str, file: str, code: int
) -> None:
    ran = cli("build", tiny, "-t", "intel-cpu", "--llm", file, "--dry-run")
    assert ran.code == code
    if code:
        assert file in ran.message


@pytest.mark.parametrize(
    ("file", "data", "code"),
    [
        ("llm.pt", None, 2),
        ("llm.pt", b"PK\x03\x04 not a zip", 4),
        ("cosyvoice2.yaml", b"a: !apply:os.system [ls]", 4),
        ("campplus.onnx", b"not onnx", 4),
    ],
)
def test_a_bad_checkpoint_leaves_no_bundle(
    cli: Cli, tiny: str, file: str, data: bytes | None, code: int
) -> None:
    shutil.copytree(tiny, "bad")
    if data is None:
        Path("bad", file).unlink()
    else:
        Path("bad", file).write_bytes(data)
    ran = cli("build", "bad", "-t", "intel-cpu", "--format", "ort", "-o", "out", "--json")
    assert ran.code == code
    assert ran.document["error"]["exit_code"] == code
    assert file in ran.message
    assert not Path("out").exists() or contents(Path("out")) == {}


def test_a_model_of_another_family_is_unsupported(cli: Cli, tiny: str) -> None:
    Path("three").mkdir()
    Path("three/cosyvoice3.yaml").write_text("sample_rate: 24000")
    ran = cli("build", "three", "-t", "intel-cpu")
    assert ran.code == 3
    assert "cosyvoice3" in ran.message


def test_a_file_in_the_way_of_the_output_is_a_usage_error(cli: Cli, tiny: str) -> None:
    Path("out").write_text("in the way")
    ran = cli("build", tiny, "-t", "intel-cpu", "-o", "out")
    assert ran.code == 2
    assert ran.message.startswith("out: ")
