"""Target profiles: what a file may say, and a line for what it may not."""

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from edgepack.bundle.goals import Goals
from edgepack.energy.meter import Scope
from edgepack.errors import UsageError
from edgepack.profiles import target

PROFILE = """\
summary: a box
architecture: x86_64
runtimes:
  ort: {container: onnx}
  openvino: {container: xml, platform: avx2}
precision:
  default: fp32
  vocoder: fp16
"""


def test_a_profile_keeps_the_order_of_its_runtimes() -> None:
    profile = target.parse("box", PROFILE)
    assert list(profile.runtimes) == ["ort", "openvino"]
    assert profile.runtimes["openvino"].platform == "avx2"
    assert profile.enrolment


def test_a_role_has_its_own_precision_or_the_default() -> None:
    profile = target.parse("box", PROFILE)
    assert (profile.precision_of("vocoder"), profile.precision_of("other")) == ("fp16", "fp32")


def test_goals_are_those_of_any_device_unless_a_profile_has_others() -> None:
    assert target.parse("box", PROFILE).goals == Goals()
    profile = target.parse("box", f"{PROFILE}goals: {{rtf: 0.5, wh_per_minute: null}}\n")
    assert (profile.goals.rtf, profile.goals.wh_per_minute) == (0.5, None)
    assert profile.goals.first_audio_s == 1.0
    assert profile.device.goals == profile.goals
    assert target.load("android-arm64").goals.peak_mb == 2000
    assert target.load("ios-arm64").goals.peak_mb == 2000


@pytest.mark.parametrize("name", target.names())
def test_a_target_is_found_by_its_name(name: str) -> None:
    assert target.load(name).summary


def test_an_unknown_target_is_met_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match="unknown target 'intel-cp'; did you mean 'intel-cpu'"):
        target.load("intel-cp")


@pytest.mark.parametrize("name", ["../intel-cpu", "", "intel-cpu.yaml", "/etc/passwd"])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(UsageError, match="unknown target"):
        target.load(name)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("summary", "sumary", "did you mean 'summary'"),
        ("precision:", "goals: {rft: 1}\nprecision:", "did you mean 'rtf'"),
        ("precision:", "goals: {peak_mb: lots}\nprecision:", "goals.peak_mb"),
        ("precision:", "goals: {interrupted_share: 2}\nprecision:", "goals.interrupted_share"),
        ("precision:", "goals: {rtf: 0}\nprecision:", "goals.rtf"),
        ("platform", "plattform", "did you mean 'platform'"),
        ("summary: a box\n", "", "summary"),
        ("summary: a box", "summary: 3", "summary"),
        ("fp16", "fp15", "did you mean 'fp16'"),
        ("default", "others", "precision needs a 'default'"),
        ("architecture: x86_64", "architecture: [x86_64]", "architecture"),
        ("{container: onnx}", "onnx", "runtimes"),
        ("runtimes:", "runtimes: [", "target box: "),
        ("a box", "!!python/object/apply:os.system ['exit']", "target box: "),
        (PROFILE, "", "target box: "),
        (PROFILE, "- a", "target box: "),
    ],
)
def test_a_mistake_is_one_line(old: str, new: str, reason: str) -> None:
    assert old in PROFILE
    with pytest.raises(UsageError, match=reason) as caught:
        target.parse("box", PROFILE.replace(old, new, 1))
    assert str(caught.value).startswith("target box: ")
    assert "\n" not in str(caught.value)


def test_the_profile_in_the_documents_is_one() -> None:
    """Every key of a profile that docs/adding.md explains, with values that are taken."""
    page = Path(__file__).parents[2].joinpath("docs", "adding.md").read_text("utf-8")
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    profile = target.parse("documented", text)
    assert set(yaml.safe_load(text)) == set(target.TargetProfile.__struct_fields__)
    assert profile.energy is not None
    assert profile.energy.scope in get_args(Scope)
