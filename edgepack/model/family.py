"""What a model family tells the pipeline; families are modules in `families`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, cast

import numpy as np

from edgepack import discovery
from edgepack.bundle.host import HostLoops
from edgepack.bundle.stages import Use
from edgepack.bundle.voices import Voice
from edgepack.errors import UnsupportedError
from edgepack.graph.net import Graph
from edgepack.model.checkpoint.config import Config
from edgepack.model.checkpoint.folder import Checkpoint
from edgepack.model.checkpoint.yaml import Tagged
from edgepack.model.releases import Releases
from edgepack.report import Step, silent

PACKAGE = "edgepack.model.families"


class Family(Protocol):
    """A module of `families`: `FAMILY = ...`."""

    @property
    def networks(self) -> Mapping[str, str]:
        """The class of each part that the configuration of a checkpoint of this family declares.

        A part is a section of the configuration, and a file of the checkpoint with its tensors.
        """
        ...

    @property
    def stages(self) -> Mapping[str, Use]:
        """The name and the use of each of `graphs`, in their order, before one is written."""
        ...

    @property
    def releases(self) -> Releases:
        """What was published of this family; none for `Releases("what people call it")`."""
        ...

    def graphs(
        self, checkpoint: Checkpoint, text_rows: np.ndarray | None = None
    ) -> Iterator[Graph]:
        """Every network, one at a time; a part's tensors are let go before the next part.

        `text_rows` are the rows of the text table to keep, in their new order; None keeps all.
        """
        ...

    def text_rows(self, checkpoint: Checkpoint) -> int:
        """How many rows the text table has; ids from the tokenizer's size on are never used."""
        ...

    def sample_rate(self, checkpoint: Checkpoint) -> int:
        """The sample rate of its audio, in Hz."""
        ...

    def host(self, checkpoint: Checkpoint) -> HostLoops:
        """How the loops of a device run around the networks."""
        ...

    def tokenizer(self, checkpoint: Checkpoint) -> str:
        """The text tokenizer as the JSON of the tokenizers library."""
        ...

    def voices(self, checkpoint: Checkpoint, warn: Step = silent) -> Mapping[str, Voice]:
        """Speakers that come with the checkpoint, by names that voices of a bundle can have.

        `warn` is told which have another name there, and what was left out as it is no voice.
        """
        ...

    def enrolment(self, checkpoint: Checkpoint) -> Mapping[str, str]:
        """Networks that are ONNX already: role → file of the checkpoint."""
        ...

    def sources(self, checkpoint: Checkpoint) -> Sequence[str]:
        """Files of the checkpoint that a bundle is made of."""
        ...


def recognise(checkpoint: Checkpoint) -> tuple[str, Family]:
    """The family of a checkpoint, with its name, by the networks that its configuration declares.

    Raises UnsupportedError if no family has them.
    """
    known = {
        name: cast(Family, discovery.load(PACKAGE, name, "FAMILY"))
        for name in discovery.names(PACKAGE)
    }
    parts = dict.fromkeys(part for family in known.values() for part in family.networks)
    declared = _declared(checkpoint.config, parts)
    for name, family in known.items():
        if declared == family.networks:
            return name, family
    listed = ", ".join(f"{part} {network}" for part, network in declared.items()) or "none"
    raise UnsupportedError(
        f"{checkpoint.folder / checkpoint.config_name}: declares the networks of another model "
        f"({listed}), which this version does not build; it builds {', '.join(known)}"
    )


def _declared(config: Config, parts: Iterable[str]) -> dict[str, str]:
    """The classes that a configuration has for parts, without their package."""
    tagged = {part: config.values.get(part) for part in parts}
    return {
        part: value.target.rpartition(".")[2]
        for part, value in tagged.items()
        if isinstance(value, Tagged)
    }
