"""Recipes: how a back end stores and computes a network, as data in `recipes/RUNTIME.yaml`."""

import re
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import get_args

import msgspec
import yaml

from edgepack import discovery
from edgepack.bundle.ranges import Precision
from edgepack.bundle.stages import Role
from edgepack.errors import UsageError

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
QUANTIZED: tuple[Precision, ...] = ("int8", "int4")


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to convert a network.

    `precision` is that of the weights. `method` is what the back end does, with `options`. `roles`
    are those of the stages that it is for, empty for all. `isa` are instruction sets of which a
    target must have one, `not_isa` those that it must not have; a target with a GPU has "cuda", and
    "cuda_int8" if the GPU multiplies integers. A `calibrated` recipe needs recorded inputs; with
    `sentences` these are whole sentences if the network decodes. `leave` are regular expressions
    for names of weights that stay in floating point. `engine` is the runtime that the result is
    for, set by the file that the recipe is read from.
    """

    summary: str
    precision: Precision
    method: str
    options: dict[str, bool | int | float | str | list[str]] = {}
    roles: tuple[Role, ...] = ()
    isa: tuple[str, ...] = ()
    not_isa: tuple[str, ...] = ()
    calibrated: bool = False
    sentences: bool = False
    leave: tuple[str, ...] = ()
    engine: str = ""

    def leaves(self, weight: str) -> bool:
        """Whether a weight of this name stays in floating point."""
        return any(re.search(pattern, weight) for pattern in self.leave)

    @property
    def quantized(self) -> bool:
        """Whether weights become integers."""
        return self.precision in QUANTIZED

    def serves(self, role: Role, isa: Iterable[str]) -> bool:
        """Whether it is for stages of a role, on a target with these instruction sets."""
        has = set(isa)
        if self.roles and role not in self.roles:
            return False
        return not has & set(self.not_isa) and (not self.isa or bool(has & set(self.isa)))


def load(runtime: str) -> dict[str, Recipe]:
    """The recipes of a runtime by name, in order of preference."""
    path = resources.files("edgepack.profiles") / "recipes" / f"{runtime}.yaml"
    found = msgspec.convert(yaml.safe_load(path.read_text("utf-8")), dict[str, Recipe])
    return {name: msgspec.structs.replace(r, engine=runtime) for name, r in found.items()}


def named(runtime: str, name: str) -> Recipe:
    """A recipe by name, "RUNTIME/NAME" if it is another runtime's; raises UsageError if unknown."""
    engine, _, own = name.rpartition("/")
    if engine and engine not in runtimes():
        raise UsageError(discovery.unknown("runtime", engine, runtimes()))
    known = load(engine or runtime)
    if own not in known:
        raise UsageError(f"{engine or runtime}: {discovery.unknown('recipe', own, known)}")
    return known[own]


def runtimes() -> list[str]:
    """Runtimes that have recipes, sorted."""
    folder = resources.files("edgepack.profiles") / "recipes"
    files = (entry.name for entry in folder.iterdir())
    return sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))


def candidates(
    runtime: str, role: Role, precision: str, isa: Sequence[str], others: Iterable[str] = ()
) -> list[str]:
    """Names of the recipes to try for a stage of a role at a precision, in order of preference.

    First those of the asked-for precision, then of higher ones (int4, int8, no quantization), then
    those without quantization of `others`, the runtimes that the stage may be delegated to. For
    fp32 and fp16 there is one recipe each, and nothing to choose from.
    """
    serving = {name: r for name, r in load(runtime).items() if r.serves(role, isa)}
    if precision not in QUANTIZED:
        return [next(name for name, r in serving.items() if r.precision == precision)]
    levels = QUANTIZED[QUANTIZED.index(precision) :: -1]
    found = [name for level in levels for name, r in serving.items() if r.precision == level]
    found += [name for name, r in serving.items() if not r.quantized]
    for other in others:
        known = load(other).items()
        found += [f"{other}/{n}" for n, r in known if not r.quantized and r.serves(role, isa)]
    return found
