"""Recipes that are fixed beforehand, from a bundle that was built or a file that was written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import yaml

from edgepack.bundle import MANIFEST, open_bundle
from edgepack.errors import UsageError
from edgepack.manifest import Offer


@dataclass(frozen=True)
class Choices:
    """Recipe names by runtime and stage (`default` for every other stage), and their offers."""

    names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    offers: Mapping[tuple[str, str], Sequence[Offer]] = field(default_factory=dict)

    def name(self, runtime: str, stage: str) -> str | None:
        """The fixed recipe of a stage, if there is one."""
        of_runtime = self.names.get(runtime, {})
        return of_runtime.get(stage, of_runtime.get("default"))


def read_choices(path: Path) -> Choices:
    """Choices of a bundle folder, or of a YAML file such as `ort: {speech_lm: nbits8}`.

    Raises UsageError for anything else.
    """
    if path.is_dir() or path.name == MANIFEST:
        stages = open_bundle(path if path.is_dir() else path.parent).manifest.stages
        names: dict[str, dict[str, str]] = {}
        offers = {}
        for stage, record in stages.items():
            for runtime, variant in record.variants.items():
                names.setdefault(runtime, {})[stage] = variant.recipe
                offers[runtime, stage] = variant.offers
        return Choices(names, offers)
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
        return Choices(msgspec.convert(tree, dict[str, dict[str, str]]))
    except (yaml.YAMLError, UnicodeError, msgspec.ValidationError) as error:
        raise UsageError(
            f"{path}: not a recipe file such as 'ort: {{speech_lm: nbits8}}' ({error})"
        ) from None
