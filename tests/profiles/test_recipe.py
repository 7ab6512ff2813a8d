"""Which recipes a network may be converted with."""

import pytest

from edgepack import discovery
from edgepack.builder.backend import PACKAGE
from edgepack.errors import UsageError
from edgepack.profiles import recipe

ROLES = (
    "text_table", "speech_table", "language_model", "encoder", "estimator",
    "excitation", "vocoder",
)  # fmt: skip
RUNTIMES = discovery.names(PACKAGE)
EVERY = pytest.mark.parametrize("runtime", RUNTIMES)


@EVERY
@pytest.mark.parametrize("role", ROLES)
def test_a_precision_that_is_no_choice_is_one_recipe(runtime: str, role: str) -> None:
    for precision in ("fp32", "fp16"):
        assert recipe.candidates(runtime, role, precision, ["avx2"]) == [precision]


@EVERY
@pytest.mark.parametrize("isa", [["avx2"], ["avx2", "avx512_vnni"], ["neon"]])
def test_quantized_recipes_come_first_and_fall_back_to_none(runtime: str, isa: list[str]) -> None:
    known = recipe.load(runtime)
    for role in ROLES:
        for precision in recipe.QUANTIZED:
            found = recipe.candidates(runtime, role, precision, isa)
            kinds = [known[name].quantized for name in found]
            assert kinds == sorted(kinds, reverse=True)
            assert found[-2:] == ["fp32", "fp16"]
            assert all(known[name].serves(role, isa) for name in found)


@EVERY
def test_int4_is_for_the_language_model_and_the_rest_is_int8(runtime: str) -> None:
    known = recipe.load(runtime)
    first = {s: recipe.candidates(runtime, s, "int4", ["avx2"])[0] for s in ROLES}
    assert known[first["language_model"]].precision == "int4"
    assert known[first["estimator"]].precision == "int8"
    assert known[first["text_table"]].method == "rows"


def test_activations_are_as_the_instruction_set_multiplies_them() -> None:
    def of(method: str, isa: list[str]) -> list[str]:
        names = recipe.candidates("ort", "estimator", "int8", isa)
        return [name for name in names if name.startswith(method)]

    assert of("static", ["avx2"]) == ["static-u8s8"]
    assert of("static", ["avx2", "avx512_vnni"]) == ["static-u8s8-vnni"]
    assert of("static", ["neon", "dotprod"]) == ["static-s8s8"]
    assert of("dynamic", ["avx2"]) == ["dynamic-s8-avx2", "dynamic-u8"]
    assert of("dynamic", ["avx2", "avx_vnni"]) == ["dynamic-s8", "dynamic-u8"]
    assert of("dynamic", ["neon", "dotprod"]) == ["dynamic-s8", "dynamic-u8"]


def test_signed_weights_have_seven_bits_where_products_saturate() -> None:
    """AVX2 adds two products of unsigned and signed bytes in 16 bits, whatever built the bundle."""
    for role in ROLES:
        for name in recipe.candidates("ort", role, "int8", ["avx2"]):
            options = recipe.named("ort", name).options
            if options.get("weights") == "int8":
                assert options["reduce_range"] is True, name


def test_an_unknown_recipe_names_a_known_one() -> None:
    with pytest.raises(UsageError, match="nbits8"):
        recipe.named("ort", "nbits")
