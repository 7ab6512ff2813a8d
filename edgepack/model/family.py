"""What a model family tells the pipeline; families are modules in `families`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np

from edgepack import discovery
from edgepack.checkpoint.config import Config
from edgepack.checkpoint.folder import Checkpoint
from edgepack.checkpoint.yaml import Tagged
from edgepack.errors import UnsupportedError
from edgepack.graph.net import Graph
from edgepack.manifest import Flow, LanguageModel, MelSpectrogram, Stream, Vocoder
from edgepack.report import Step, silent
from edgepack.voices import Voice

PACKAGE = "edgepack.families"
PARTS = ("llm", "flow", "hift")  # state dicts of every family
TEXT_TABLE = "text_embedding"  # the network of every family that looks up text ids
# Releases that this version does not build, by the class of their language model.
_OTHER_RELEASES = {"TransformerLM": "CosyVoice 1", "CosyVoice3LM": "CosyVoice 3"}


@dataclass(frozen=True)
class HostSettings:
    """What the device's own loops need to know, as it goes into the manifest."""

    sample_rate: int
    end_of_prompt: str
    language_model: LanguageModel
    flow: Flow
    vocoder: Vocoder
    stream: Stream
    prompt_mel: MelSpectrogram


class Family(Protocol):
    """A module of `families`: `FAMILY = ...`."""

    @property
    def networks(self) -> Mapping[str, str]:
        """The class of each part that the configuration of a checkpoint of this family declares."""
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

    def host(self, checkpoint: Checkpoint) -> HostSettings:
        """Settings of the host loops."""
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
    declared = _declared(checkpoint.config)
    known = []
    for name in discovery.names(PACKAGE):
        family = cast(Family, discovery.load(PACKAGE, name, "FAMILY"))
        if declared == family.networks:
            return name, family
        known.append(name)
    release = _OTHER_RELEASES.get(declared.get("llm", ""), "another model")
    listed = ", ".join(f"{part} {network}" for part, network in declared.items()) or "none"
    raise UnsupportedError(
        f"{checkpoint.folder / checkpoint.config_name}: declares the networks of {release} "
        f"({listed}), which this version does not build; it builds {', '.join(known)}"
    )


def _declared(config: Config) -> dict[str, str]:
    """The classes that a configuration has for the parts, without their package."""
    tagged = {part: config.values.get(part) for part in PARTS}
    return {
        part: value.target.rpartition(".")[2]
        for part, value in tagged.items()
        if isinstance(value, Tagged)
    }
