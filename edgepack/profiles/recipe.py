"""Recipes: how a back end stores and computes a network, as data in `recipes/RUNTIME.yaml`."""

import re
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import get_args

import msgspec
import yaml

from edgepack import discovery
from edgepack.errors import UsageError
from edgepack.ranges import Precision

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
QUANTIZED: tuple[Precision, ...] = ("int8", "int4")


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to convert a network.

    `precision` is of the weights. `method` is what the back end does with `options`. `stages`
    are those it is for, none for every one. `isa` are instruction sets of which a target must
    have one, `not_isa` those it must not have; a target with a GPU has "cuda", and with one that
    multiplies integers "cuda_int8". `calibrated` recipes need recorded inputs. `leave` are regular
    expressions for names of weights that stay in floating point. `engine` is the runtime that the
    result is for; it is where the recipe stands, not a part of it.
    """

    summary: str
    precision: Precision
    method: str
    options: dict[str, bool | int | float | str | list[str]] = {}
    stages: tuple[str, ...] = ()
    isa: tuple[str, ...] = ()
    not_isa: tuple[str, ...] = ()
    calibrated: bool = False
    leave: tuple[str, ...] = ()
    engine: str = ""

    def leaves(self, weight: str) -> bool:
        """Whether a weight of this name stays in floating point."""
        return any(re.search(pattern, weight) for pattern in self.leave)

    @property
    def quantized(self) -> bool:
        """Whether weights become integers."""
        return self.precision in QUANTIZED

    def serves(self, stage: str, isa: Iterable[str]) -> bool:
        """Whether it is for a stage, on a target with these instruction sets."""
        has = set(isa)
        if self.stages and stage not in self.stages:
            return False
        return not has & set(self.not_isa) and (not self.isa or bool(has & set(self.isa)))


def load(runtime: str) -> dict[str, Recipe]:
    """The recipes of a runtime by name, in order of preference."""
    path = resources.files("edgepack") / "recipes" / f"{runtime}.yaml"
    found = msgspec.convert(yaml.safe_load(path.read_text("utf-8")), dict[str, Recipe])
    return {name: msgspec.structs.replace(r, engine=runtime) for name, r in found.items()}


def named(runtime: str, name: str) -> Recipe:
    """One recipe, "RUNTIME/NAME" for that of a guest; raises UsageError for an unknown one."""
    engine, _, own = name.rpartition("/")
    if engine and engine not in runtimes():
        raise UsageError(discovery.unknown("runtime", engine, runtimes()))
    known = load(engine or runtime)
    if own not in known:
        raise UsageError(f"{engine or runtime}: {discovery.unknown('recipe', own, known)}")
    return known[own]


def runtimes() -> list[str]:
    """Runtimes that have recipes, sorted."""
    folder = resources.files("edgepack") / "recipes"
    files = (entry.name for entry in folder.iterdir())
    return sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))


def candidates(
    runtime: str, stage: str, precision: str, isa: Sequence[str], guests: Iterable[str] = ()
) -> list[str]:
    """Names of the recipes to try for a stage at a precision, in order of preference.

    Those of the asked-for precision, then of higher ones, as far as there are any: int4, int8,
    no quantization; then those without quantization of other runtimes, the `guests`. fp32 and
    fp16 are one recipe each, and nothing to choose from.
    """
    serving = {name: r for name, r in load(runtime).items() if r.serves(stage, isa)}
    if precision not in QUANTIZED:
        return [next(name for name, r in serving.items() if r.precision == precision)]
    levels = QUANTIZED[QUANTIZED.index(precision) :: -1]
    found = [name for level in levels for name, r in serving.items() if r.precision == level]
    found += [name for name, r in serving.items() if not r.quantized]
    for guest in guests:
        others = load(guest).items()
        found += [f"{guest}/{n}" for n, r in others if not r.quantized and r.serves(stage, isa)]
    return found
