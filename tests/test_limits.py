"""Which limits a bundle is held to, and profiles and recipes that would be held to none."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from edgepack import limits, plan, target
from edgepack.choices import Choices
from edgepack.errors import UsageError
from edgepack.manifest import Variant
from edgepack.metrics import Limit
from edgepack.plan import BuildRequest, Plan, open_source
from edgepack.ranges import Precision
from edgepack.recipe import QUANTIZED
from edgepack.target import TargetProfile
from edgepack.verification import gates

PROFILE = """
summary: planted
architecture: x86_64
runtimes: {ort: {container: onnx}}
precision: {default: int8, speech_lm: fp32}
"""


def profile(text: str = PROFILE) -> TargetProfile:
    return target.parse("planted", text)


def planned(of: TargetProfile, **options: object) -> Plan:
    return Plan("planted", of, Path("out"), "key", **options)  # type: ignore[arg-type]


def variants(of: TargetProfile, **made: Precision) -> dict[str, dict[str, Variant]]:
    precisions = {stage: made.get(stage, of.stage_precision(stage)) for stage in gates.STAGES}
    return {
        stage: {"ort": Variant(files=(), precision=p, limit=1.0, recipe="")}
        for stage, p in precisions.items()
    }


def test_a_float_language_model_does_not_free_the_others() -> None:
    mixed = profile()
    assert limits.of_stage(mixed, "flow_estimator", "int8") == {"mel_lsd": Limit(high=1.0)}
    whole = limits.of_runtime(mixed, "ort", variants(mixed))
    assert {"lm_agreement", "mel_lsd", "si_sdr", "duration_ratio"} <= set(whole)


def test_each_network_has_the_limits_of_its_own_precision() -> None:
    both = profile(PROFILE.replace("fp32", "int4"))
    assert limits.of_stage(both, "speech_lm", "int4")["lm_agreement"] == Limit(low=0.9)
    assert limits.of_stage(both, "speech_lm", "int8")["lm_agreement"] == Limit(low=0.96)
    coarse = limits.of_runtime(both, "ort", variants(both))
    assert coarse["lm_agreement"] == Limit(low=0.9)  # of the coarsest that is judged with it
    fine = limits.of_runtime(both, "ort", variants(both, speech_lm="int8"))
    assert fine["lm_agreement"] == Limit(low=0.96)


def test_a_network_that_stayed_in_floating_point_keeps_what_was_asked_for() -> None:
    assert limits.of_stage(profile(), "hift", "fp16")["si_sdr"] == Limit(low=20)


def test_fp32_has_no_limits() -> None:
    plain = profile(PROFILE.replace("int8", "fp32"))
    assert limits.of_runtime(plain, "ort", variants(plain)) == {}


def test_integers_without_limits_are_refused() -> None:
    with pytest.raises(UsageError, match="gates have no limits for int8"):
        profile(PROFILE + "gates: {int4: {lm_kld: {high: 1}}}")
    lacking = profile(PROFILE + "gates: {int8: {lm_kld: {high: 1}}}")
    with pytest.raises(UsageError, match=r"no limit for flow_encoder.*mel_lsd"):
        limits.check(planned(lacking))


def test_a_fixed_recipe_without_limits_is_refused() -> None:
    lacking = profile(PROFILE.replace("int8", "fp32") + "gates: {fp16: {lm_kld: {high: 1}}}")
    limits.check(planned(lacking))
    with pytest.raises(UsageError, match="gates at int8 have no limit"):
        limits.check(planned(lacking, choices=Choices({"ort": {"speech_lm": "nbits8"}})))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("gates: {int9: {lm_kld: {high: 1}}}", "did you mean 'int8'"),
        ("gates: {int8: {lm_kdl: {high: 1}}}", "did you mean 'lm_kld'"),
        ("gates: {int8: {lm_kld: {hihg: 1}}}", "did you mean 'high'"),
    ],
)
def test_mistyped_gates_are_refused(wrong: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        profile(PROFILE + wrong)


def test_a_mistyped_precision_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'int8'"):
        profile(PROFILE.replace("int8", "itn8"))


def test_mistyped_networks_are_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'speech_lm'"):
        limits.check(planned(profile(PROFILE.replace("speech_lm", "speach_lm"))))
    with pytest.raises(UsageError, match="did you mean 'flow_time'"):
        limits.check(planned(profile(), choices=Choices({"ort": {"flow_tine": "fp32"}})))


@pytest.mark.parametrize("name", target.names())
@pytest.mark.parametrize("precision", ["auto", *QUANTIZED])
def test_every_target_has_limits_at_every_precision(name: str, precision: str) -> None:
    request = BuildRequest("demo", [name], Path("out"), precision=precision)
    (wanted,) = plan.plan(request, SOURCE)
    limits.check(wanted)


SOURCE = open_source("demo")


def test_optional_metrics_are_declared() -> None:
    for found in profile().gates.values():
        assert [metric for metric, limit in found.items() if limit.optional] == ["pesq"]
    needed = msgspec.structs.replace(profile().gates["int8"]["pesq"], optional=False)
    assert gates.failures({}, {"pesq": needed})


def test_unknown_recipes_are_told_before_anything_is_built(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("ort: {speech_lm: nbits9}")
    request = BuildRequest("demo", ["intel-cpu"], tmp_path, recipe=recipe)
    (wanted,) = plan.plan(replace(request, formats=["ort"]), SOURCE)
    with pytest.raises(UsageError, match="nbits9"):
        limits.check(wanted)
