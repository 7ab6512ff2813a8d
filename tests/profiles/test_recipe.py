"""Which recipes a network may be converted with."""

import pytest

from edgepack import discovery, recipe
from edgepack.backend import PACKAGE
from edgepack.errors import UsageError

STAGES = (
    "text_embedding", "speech_embedding", "speech_lm", "flow_encoder", "flow_estimator",
    "hift_source", "hift",
)  # fmt: skip
RUNTIMES = discovery.names(PACKAGE)
EVERY = pytest.mark.parametrize("runtime", RUNTIMES)


@EVERY
@pytest.mark.parametrize("stage", STAGES)
def test_a_precision_that_is_no_choice_is_one_recipe(runtime: str, stage: str) -> None:
    for precision in ("fp32", "fp16"):
        assert recipe.candidates(runtime, stage, precision, ["avx2"]) == [precision]


@EVERY
@pytest.mark.parametrize("isa", [["avx2"], ["avx2", "avx512_vnni"], ["neon"]])
def test_quantized_recipes_come_first_and_fall_back_to_none(runtime: str, isa: list[str]) -> None:
    known = recipe.load(runtime)
    for stage in STAGES:
        for precision in recipe.QUANTIZED:
            found = recipe.candidates(runtime, stage, precision, isa)
            kinds = [known[name].quantized for name in found]
            assert kinds == sorted(kinds, reverse=True)
            assert found[-2:] == ["fp32", "fp16"]
            assert all(known[name].serves(stage, isa) for name in found)


@EVERY
def test_int4_is_for_the_language_model_and_the_rest_is_int8(runtime: str) -> None:
    known = recipe.load(runtime)
    first = {s: recipe.candidates(runtime, s, "int4", ["avx2"])[0] for s in STAGES}
    assert known[first["speech_lm"]].precision == "int4"
    assert known[first["flow_estimator"]].precision == "int8"
    assert known[first["text_embedding"]].method == "rows"


def test_activations_are_as_the_instruction_set_multiplies_them() -> None:
    def static(isa: list[str]) -> list[str]:
        names = recipe.candidates("ort", "flow_estimator", "int8", isa)
        return [name for name in names if name.startswith("static")]

    assert static(["avx2"]) == ["static-u8s8"]
    assert static(["avx2", "avx512_vnni"]) == ["static-u8s8-vnni"]
    assert static(["neon", "dotprod"]) == ["static-s8s8"]
    known = recipe.load("ort")
    assert known["static-u8s8"].options["reduce_range"] is True
    assert known["static-u8s8-vnni"].options["reduce_range"] is False


def test_an_unknown_recipe_names_a_known_one() -> None:
    with pytest.raises(UsageError, match="nbits8"):
        recipe.named("ort", "nbits")
