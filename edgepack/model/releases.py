"""Which published release a checkpoint is, by its dimensions and by what is known of its files.

A family lists its releases (`Family.releases`). The number of weights in each part, some settings,
the name of the configuration and the speakers say which of them a checkpoint may be. Sizes and
hashes of published files, where they are known, say whether its files are the published ones.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgepack.model.checkpoint.folder import Checkpoint
from edgepack.model.checkpoint.yaml import Tagged


@dataclass(frozen=True)
class KnownRelease:
    """A model as it was published, by what is known of it; what is left out is not compared.

    `name` is its repository on the hubs without the owner, `revision` the beginning of a commit of
    it on Hugging Face. `parameters` are distinct weights by part, `settings` values of the
    configuration by keys with dots, `configuration` is the name of that file. `sizes` are bytes of
    files, `hashes` beginnings of their SHA-256. `variants` are names of language models by file.
    """

    name: str
    revision: str = ""
    parameters: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    configuration: str = ""
    speakers: frozenset[str] | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    variants: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Releases:
    """Those of a family: what people call it, and its releases.

    `repeated` are tensors that a file may have besides, and that are not counted.
    """

    model: str
    known: Sequence[KnownRelease] = ()
    repeated: Collection[str] = ()


@dataclass(frozen=True)
class Recognised:
    """The release that a checkpoint is: `names` are several if nothing tells them apart.

    There is none if its dimensions are of no release; `model` is what people call its family.
    `published` says of files that are the release's what shows it. `differing` files are not, so
    they were trained further or saved again. Of `unknown` weights nothing is known to compare with.
    `revision` is where all files that could be compared are of, `variant` that of the language
    model; each is "" if it is not known.
    """

    model: str
    names: tuple[str, ...] = ()
    revision: str = ""
    variant: str = ""
    published: Mapping[str, str] = field(default_factory=dict)
    differing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def of_repository(self, name: str) -> "Recognised":
        """The same where the repository that it was downloaded from is one of `names`."""
        return replace(self, names=(name,)) if name in self.names else self

    def lines(self) -> Iterator[str]:
        """What to tell a user."""
        if not self.names:
            yield f"release: unknown: {self.model} of other dimensions"
            return
        variant = f", {self.variant} language model" if self.variant else ""
        revision = f" (revision {self.revision})" if self.revision else ""
        yield f"release: {' or '.join(self.names)}{revision}{variant}, by its dimensions"
        if self.published:
            shown = (f"{name} ({how})" for name, how in self.published.items())
            yield f"files of the release: {', '.join(shown)}"
        if self.differing:
            yield f"other files than the release's: {', '.join(self.differing)}"
        if self.unknown:
            yield f"not compared, as nothing is known of the release's: {', '.join(self.unknown)}"


def recognise_release(
    checkpoint: Checkpoint, releases: Releases, speakers: Collection[str]
) -> Recognised:
    """The release of a checkpoint whose family has these, and whose `spk2info.pt` these speakers.

    Files with a known hash are read as a whole, others are not.
    """
    parts = dict.fromkeys(part for known in releases.known for part in known.parameters)
    counts = {part: _count(checkpoint.tensors(part), releases.repeated) for part in parts}
    fitting = [known for known in releases.known if _fits(checkpoint, known, counts)]
    if not fitting:
        return Recognised(releases.model)
    # Speakers of one's own say nothing: tables are copied from one folder to another.
    spoken = [known for known in fitting if known.speakers in (None, frozenset(speakers))]
    found = spoken or fitting
    release = found[0]
    weights = [checkpoint.container(part) for part in parts]
    published, differing, variant = {}, [], ""
    for name, whose in _compared(checkpoint, release):
        if not whose:
            differing.append(name)
            continue
        how = "by its hash" if name in release.hashes else "by its size"
        published[name] = how if whose == name else f"{whose} there, {how}"
        if name in weights:  # a folder may have the others beside the one that is used
            variant = release.variants.get(whose, variant)
    return Recognised(
        releases.model,
        tuple(known.name for known in found),
        release.revision if published and not differing else "",
        variant,
        published,
        tuple(differing),
        tuple(name for name in weights if name not in (*published, *differing)),
    )


def distinct(tensors: Iterable[np.ndarray]) -> Collection[np.ndarray]:
    """Tensors with storage of their own; of those that share one the last."""
    return {(tensor.ctypes.data, tensor.shape): tensor for tensor in tensors}.values()


def _count(tensors: Mapping[str, np.ndarray], repeated: Collection[str]) -> int:
    """Distinct weights."""
    counted = (tensor for name, tensor in tensors.items() if name not in repeated)
    return sum(tensor.size for tensor in distinct(counted))


def _fits(checkpoint: Checkpoint, release: KnownRelease, counts: Mapping[str, int]) -> bool:
    """Whether a checkpoint has the dimensions and the settings of a release."""
    return (
        release.configuration in ("", checkpoint.config_name)
        and all(counts[part] == count for part, count in release.parameters.items())
        and all(
            _setting(checkpoint.config.values, key) == value
            for key, value in release.settings.items()
        )
    )


def _setting(values: Mapping[str, Any], key: str) -> object:
    """The value at a key with dots; None if there is none."""
    found: Any = values
    for part in key.split("."):
        if isinstance(found, Tagged):
            found = found.value
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _compared(checkpoint: Checkpoint, release: KnownRelease) -> Iterator[tuple[str, str]]:
    """Files of which the release has a size or a hash, and which of its files each is, or ""."""
    for name in dict.fromkeys([*release.sizes, *release.hashes]):
        if not checkpoint.has(name):
            continue
        if begins := release.hashes.get(name):
            yield name, name if checkpoint.sha256(name).startswith(begins) else ""
            continue
        size = checkpoint.file(name).stat().st_size
        # Its own name first: two files may be of one size.
        others = [name, *release.sizes]
        yield name, next((other for other in others if release.sizes[other] == size), "")
