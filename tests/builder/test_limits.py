"""Which limits a bundle is held to, and profiles and recipes that would be held to none."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from edgepack.builder import limits, planning
from edgepack.builder.choices import Choices
from edgepack.builder.planning import BuildRequest, Plan, open_source
from edgepack.bundle.manifest import Variant
from edgepack.bundle.metrics import Limit, Limits, Quality
from edgepack.bundle.ranges import Precision
from edgepack.errors import EdgepackError, GateError, ResourceError, UnsupportedError, UsageError
from edgepack.model.families.cosyvoice2 import FAMILY
from edgepack.profiles import target
from edgepack.profiles.recipe import QUANTIZED
from edgepack.profiles.target import TargetProfile
from edgepack.runtime.engines.session import EngineError
from edgepack.verification import gates

PROFILE = """
summary: planted
architecture: x86_64
runtimes: {ort: {container: onnx}}
precision: {default: int8, language_model: fp32}
"""

GATES = """
gates:
  int8: &close
    lm_agreement: {low: 0.96}
    mel_lsd: {high: 1}
    si_sdr: {low: 20}
    duration_ratio: {low: 0.9, high: 1.1}
  int4: {<<: *close, lm_agreement: {low: 0.9}}
"""


def profile(text: str = PROFILE) -> TargetProfile:
    return target.parse("planted", text)


def planned(of: TargetProfile, **options: object) -> Plan:
    return Plan("planted", of, Path("out"), "key", FAMILY.stages, **options)  # type: ignore[arg-type]


def variants(of: TargetProfile, **made: Precision) -> dict[str, dict[str, Variant]]:
    precisions = {
        stage: made.get(stage, of.precision_of(use.role)) for stage, use in FAMILY.stages.items()
    }
    return {
        stage: {"ort": Variant(files=(), precision=p, limit=1.0, recipe="")}
        for stage, p in precisions.items()
    }


def test_a_float_language_model_does_not_free_the_others() -> None:
    mixed = profile()
    assert limits.of_stage(planned(mixed), "flow_estimator", "int8") == {"mel_lsd": Limit(high=1.0)}
    whole = limits.of_runtime(planned(mixed), "ort", variants(mixed))
    assert {"lm_agreement", "mel_lsd", "si_sdr", "duration_ratio"} <= set(whole)


def test_each_network_has_the_limits_of_its_own_precision() -> None:
    both = profile(PROFILE.replace("fp32", "int4") + GATES)
    assert limits.of_stage(planned(both), "speech_lm", "int4")["lm_agreement"] == Limit(low=0.9)
    assert limits.of_stage(planned(both), "speech_lm", "int8")["lm_agreement"] == Limit(low=0.96)
    coarse = limits.of_runtime(planned(both), "ort", variants(both))
    assert coarse["lm_agreement"] == Limit(low=0.9)  # of the coarsest that is judged with it
    fine = limits.of_runtime(planned(both), "ort", variants(both, speech_lm="int8"))
    assert fine["lm_agreement"] == Limit(low=0.96)


def test_a_network_that_stayed_in_floating_point_keeps_what_was_asked_for() -> None:
    assert limits.of_stage(planned(profile()), "hift", "fp16")["si_sdr"] == Limit(low=20)


def test_fp32_has_no_limits() -> None:
    plain = profile(PROFILE.replace("int8", "fp32"))
    assert limits.of_runtime(planned(plain), "ort", variants(plain)) == {}


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
    with pytest.raises(UsageError, match="did you mean 'language_model'"):
        limits.check(planned(profile(PROFILE.replace("language_model", "langauge_model"))))
    with pytest.raises(UsageError, match="did you mean 'flow_time'"):
        limits.check(planned(profile(), choices=Choices({"ort": {"flow_tine": "fp32"}})))


@pytest.mark.parametrize("name", target.names())
@pytest.mark.parametrize("precision", ["auto", *QUANTIZED])
def test_every_target_has_limits_at_every_precision(name: str, precision: str) -> None:
    request = BuildRequest("demo", [name], Path("out"), precision=precision)
    (wanted,) = planning.plan(request, SOURCE)
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
    (wanted,) = planning.plan(replace(request, formats=["ort"]), SOURCE)
    with pytest.raises(UsageError, match="nbits9"):
        limits.check(wanted)


@pytest.mark.parametrize(
    "gates_",
    [
        "{int8: {lm_kld: {}}}",
        "{int8: {lm_kld: {low: 2, high: 1}}}",
        "{int8: {lm_kld: {high: .nan}}}",
    ],
)
def test_a_limit_that_limits_nothing_is_refused(gates_: str) -> None:
    with pytest.raises(UsageError, match="target planted: "):
        profile(PROFILE + f"gates: {gates_}")


def test_optional_limits_alone_are_none() -> None:
    limit = "{lm_kld: {high: 1}, mel_lsd: {high: 1}, pesq: {low: 4, optional: true}}"
    with pytest.raises(UsageError, match="no limit for hift_source, hift"):
        limits.check(planned(profile(PROFILE + f"gates: {{int8: {limit}}}")))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"orrt": {"speech_lm": "nbits8"}}, "did you mean 'ort'"),
        ({"openvino": {"default": "fp32"}}, "the recipes are of openvino"),
    ],
)
def test_recipes_of_no_runtime_of_the_bundle_are_refused(
    names: dict[str, dict[str, str]], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        limits.check(planned(profile(), choices=Choices(names)))


def quality(*failed: str) -> Quality:
    of_each = dict.fromkeys(("ort", "openvino", "tflite"))
    return Quality(
        exam="exam.npz",
        limits={runtime: {} for runtime in of_each},
        values={runtime: {} for runtime in of_each},
        not_measured=dict.fromkeys(of_each, ()),
        failed=failed,
    )


def test_a_failed_exam_says_which_runtimes_passed_and_how_to_build_with_them() -> None:
    limits.require_passed(Path("out"), quality())
    missed = "openvino: lm_agreement is 0.8, at least 0.9 is asked for"
    with pytest.raises(GateError) as failed:
        limits.require_passed(Path("out"), quality(missed))
    words = str(failed.value)
    assert f"{missed}; ort and tflite passed; no bundle was written" in words
    assert "Try --format ort --format tflite, another --precision" in words
    every = [f"{runtime}: broken" for runtime in ("ort", "openvino", "tflite")]
    with pytest.raises(GateError, match="Try another --precision") as failed:
        limits.require_passed(Path("out"), quality(*every))
    assert "passed" not in str(failed.value)


THREE = PROFILE.replace(
    "{ort: {container: onnx}}",
    "{ort: {container: onnx}, openvino: {container: openvino}, tflite: {container: tflite}}",
)


@pytest.mark.parametrize("kind", [GateError, UnsupportedError, EngineError])
def test_what_one_runtime_fails_at_says_how_to_do_without_it(kind: type[EdgepackError]) -> None:
    three = profile(THREE)
    with pytest.raises(kind, match=r"^openvino failed: off; ort got .*: try --format ort$"):
        fail(kind, ["ort"], three)
    with pytest.raises(kind, match="ort and tflite not tried yet: try --format ort --format tfl"):
        fail(kind, [], three)
    with pytest.raises(kind, match=r"^off$"):
        fail(kind, [], profile(PROFILE.replace("ort: {", "openvino: {")))


def test_what_runs_out_is_no_fault_of_a_runtime() -> None:
    with pytest.raises(ResourceError, match=r"^off$"):
        fail(ResourceError, ["ort"], profile(THREE))


def fail(kind: type[EdgepackError], done: list[str], wanted: TargetProfile) -> None:
    with limits.blamed("openvino", done, wanted):
        raise kind("off")


def test_what_a_solver_calls_may_miss_less_than_the_solver() -> None:
    held_to: Limits = {"mel_lsd": Limit(high=1.0), "si_sdr": Limit(low=20.0)}
    solved = {
        stage
        for stage, use in FAMILY.stages.items()
        if limits.of_solved(held_to, use, 0.5) != held_to
    }
    assert solved == {"flow_time", "flow_estimator"}
    use = FAMILY.stages["flow_estimator"]
    found = limits.of_solved(held_to, use, 0.5)
    assert found == {"mel_lsd": Limit(high=0.4), "si_sdr": Limit(low=20.0)}
    assert limits.of_solved(held_to, use, 2.0) == held_to
    assert limits.of_solved({}, use, 0.5) == {"mel_lsd": Limit(high=0.4)}
    assert limits.of_solved(held_to, use, None) == held_to
