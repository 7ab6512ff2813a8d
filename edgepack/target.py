"""Target profiles: one YAML file per device, found by its file name. Data only, no inheritance."""

import difflib
import re
from importlib import resources
from importlib.resources.abc import Traversable

import msgspec
import yaml

from edgepack import discovery
from edgepack.errors import UsageError
from edgepack.manifest import Limit
from edgepack.recipe import PRECISIONS

Precision = str


class RuntimeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one runtime's files are written.

    `container` is a file format of that runtime; `platform` the instruction set that its
    optimizer may specialise for.
    """

    container: str
    platform: str = ""


class TargetProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a device runs: its runtimes in order of preference, and the precision of each stage.

    `isa` are its instruction sets beyond the architecture's least, such as avx2 or neon.
    `precision` maps a stage to fp32, fp16, int8 or int4; `default` is every other one. `gates`
    are limits of metrics by the precision of the language model.
    `enrolment` is whether bundles carry the networks that make voices of recordings, which a
    bundle with voices can do without.
    """

    summary: str
    architecture: str
    runtimes: dict[str, RuntimeOptions]
    precision: dict[str, Precision]
    isa: tuple[str, ...] = ()
    gates: dict[str, dict[str, Limit]] = {}
    enrolment: bool = True

    def stage_precision(self, stage: str) -> Precision:
        """The precision this profile gives to a stage."""
        return self.precision.get(stage, self.precision["default"])


def _files() -> dict[str, Traversable]:
    folder = resources.files("edgepack") / "targets"
    return {
        entry.name.removesuffix(".yaml"): entry
        for entry in sorted(folder.iterdir(), key=lambda e: e.name)
        if entry.name.endswith(".yaml")
    }


def names() -> list[str]:
    """Names of all targets, sorted."""
    return list(_files())


def load(name: str) -> TargetProfile:
    """The profile of a target; raises UsageError for an unknown target, key or value."""
    files = _files()
    if name not in files:
        raise UsageError(discovery.unknown("target", name, files))
    return parse(name, files[name].read_text("utf-8"))


def parse(name: str, text: str) -> TargetProfile:
    """A profile from its YAML text; an unknown key is refused with the closest known one."""
    try:
        profile = msgspec.convert(yaml.safe_load(text), TargetProfile)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise UsageError(f"target {name}: {error}{_suggestion(str(error))}") from None
    wrong = set(profile.precision.values()) - set(PRECISIONS)
    if wrong or "default" not in profile.precision:
        raise UsageError(
            f"target {name}: precision needs a 'default' and takes only {', '.join(PRECISIONS)}"
        )
    return profile


def _suggestion(message: str) -> str:
    unknown = re.search(r"unknown field `(\w+)`", message)
    known = [*TargetProfile.__struct_fields__, *RuntimeOptions.__struct_fields__]
    close = difflib.get_close_matches(unknown[1], known, n=1) if unknown else []
    return f"; did you mean {close[0]!r}?" if close else ""
