"""What a stage says about itself decides how it is loaded, kept and judged, whatever its name."""

from types import SimpleNamespace
from typing import Any

import pytest

from edgepack.bundle.ranges import Precision
from edgepack.bundle.stages import TOLERANCE, Called, Memory, Use, of_role
from edgepack.runtime.engines.residency import group
from edgepack.runtime.engines.session import Accelerator
from edgepack.runtime.loading import Host
from edgepack.verification import selftest

HOST = Host("ort", 1)
LARGE = 64 << 20


@pytest.mark.parametrize(
    ("mapped", "precision", "wanted"),
    [
        (True, "fp32", True),
        (True, "fp16", True),
        (True, "int8", False),  # integers are repacked
        (False, "fp32", False),
    ],
)
def test_files_are_mapped_where_that_is_said(mapped: bool, precision: str, wanted: bool) -> None:
    assert HOST.options("net", Use(role="encoder", mapped=mapped), precision).mapped == wanted


@pytest.mark.parametrize(
    ("memory", "size", "wanted"),
    [
        ("kept", LARGE, False),
        ("released", 0, True),
        ("released_if_large", 0, False),
        ("released_if_large", LARGE, True),
    ],
)
def test_memory_is_given_back_where_that_is_said(memory: Memory, size: int, wanted: bool) -> None:
    assert HOST.options("net", Use(role="encoder", memory=memory), "fp32", size).transient == wanted


@pytest.mark.parametrize("called", ["utterance", "step"])
def test_a_stage_of_steps_repeats_its_shapes_on_a_gpu(called: Called) -> None:
    placement: Any = SimpleNamespace(accelerator=lambda stage: Accelerator(()))
    options = Host("ort", 1, placement=placement).options("net", Use(role="vocoder", called=called))
    assert options.accelerator == Accelerator((), repeated=called == "step")


def test_what_is_called_while_tokens_are_decoded_is_in_memory_together() -> None:
    table, decoder = (Use(role=role, called="token") for role in ("text_table", "language_model"))
    assert group("a", table) == group("b", decoder)
    assert len({group(name, Use(role="vocoder")) for name in "ab"} | {group("a", table)}) == 3


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
def test_a_tolerant_stage_may_be_further_off_but_never_as_far_as_zeros(
    precision: Precision,
) -> None:
    usual = selftest.limit(Use(role="vocoder"), precision)
    tolerant = selftest.limit(Use(role="vocoder", tolerance=10 * TOLERANCE), precision)
    assert tolerant == pytest.approx(min(10 * usual, 0.5))


def test_a_role_that_no_stage_has() -> None:
    uses = {"a": Use(role="encoder"), "b": Use(role="vocoder")}
    assert of_role(uses, "vocoder") == "b"
    with pytest.raises(KeyError, match="excitation"):
        of_role(uses, "excitation")
