"""How the loops of a device run around the networks: one record, whose parts each have a kind.

A kind is one module under `runtime/strategies/PART/`, found by its name. It has `Record`, what a
manifest says of its kind, and `STRATEGY`, what runs it. So another tokenizer, flow or vocoder is
another module, and nothing else knows of it.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, cast

import msgspec

from edgepack import discovery
from edgepack.bundle.arrays import AnyShape
from edgepack.bundle.ranges import Few, Id, Length, Rate, Ratio, Schedule, Share, Size, Struct, Word
from edgepack.errors import UnsupportedError, UsageError

PACKAGE = "edgepack.runtime.strategies"
LARGEST = 1 << 27  # values of an array that a device allocates by numbers of a manifest


class Signature(msgspec.Struct, frozen=True):
    """What a network takes and gives: kind of number ("f", "i") and shape by name.

    None in place of a shape is any. It may give other outputs as well.
    """

    inputs: Mapping[str, tuple[str, AnyShape] | None]
    outputs: Mapping[str, tuple[str, AnyShape] | None]


class HostPart(Struct, frozen=True, tag_field="kind"):
    """One part of the host's loops; a kind of it adds its own fields."""

    @property
    def kind(self) -> str:
        """The name of its module."""
        return cast(str, self.__struct_config__.tag)

    def networks(self, host: "HostLoops") -> Mapping[str, Signature]:
        """The networks that this part calls, by role."""
        return {}

    def problems(self, host: "HostLoops") -> Iterator[str]:
        """What is wrong with its numbers, also beside those of the other parts."""
        yield from ()

    def misfit(self, calls: Mapping[str, Any]) -> str:
        """What is wrong with recorded calls of its networks, (feeds, outputs) by role; or ""."""
        return ""


class Sampling(Struct, frozen=True):
    """Repetition-aware nucleus sampling: see `runtime.stages.sampling`."""

    top_p: Share
    top_k: Size
    window: Length
    repetition: Ratio


class TextPart(HostPart, frozen=True):
    """How text becomes token ids; `end_of_prompt` is the token after an instruction."""

    end_of_prompt: Word

    def unknown(self, vocabulary: Mapping[str, int]) -> str:
        """A token that it needs and the tokenizer's vocabulary lacks; or ""."""
        return "" if self.end_of_prompt in vocabulary else self.end_of_prompt

    @property
    def added(self) -> Sequence[str]:
        """Texts of its own that it puts before others: trimming keeps their tokens."""
        return ()


class LanguageModelPart(HostPart, frozen=True):
    """How speech tokens are decoded.

    Ids below `speech_tokens` are speech, all others stop or steer. Lengths are `min_ratio` to
    `max_ratio` speech tokens a text token; `masked_before_min` is not chosen below the former.
    """

    speech_tokens: Size
    masked_before_min: Id
    min_ratio: Ratio
    max_ratio: Ratio
    sampling: Sampling

    def networks(self, host: "HostLoops") -> Mapping[str, Signature]:
        """Two tables of embeddings and the decoder over them."""
        ids: tuple[str, AnyShape] = ("i", (1, None))
        rows: tuple[str, AnyShape] = ("f", (1, None, None))
        table = Signature({"ids": ids}, {"embeddings": rows})
        decoder = Signature({"embeddings": rows}, {"logits": ("f", (1, None))})
        return {"text_table": table, "speech_table": table, "language_model": decoder}

    def misfit(self, calls: Mapping[str, Any]) -> str:
        """Tables and a decoder of different widths."""
        (_, text), (_, speech), (decoder, _) = (
            calls[role][0] for role in ("text_table", "speech_table", "language_model")
        )
        found = {rows["embeddings"].shape[2] for rows in (text, speech, decoder)}
        return (
            ""
            if len(found) == 1 and 0 not in found
            else "embeddings and language model differ in width"
        )

    def problems(self, host: "HostLoops") -> Iterator[str]:
        """Ratios in the wrong order."""
        if self.min_ratio > self.max_ratio:
            yield "min_ratio is above max_ratio"

    def beyond(self, speech_rows: int, logits: int) -> str:
        """Which of its ids are no rows of the speech table or no logits, in words; or ""."""
        return "" if self.masked_before_min < logits else "masked_before_min is no id of the logits"


class FlowPart(HostPart, frozen=True):
    """How speech tokens become a mel spectrogram of `mels` bands.

    `steps` and `schedule` are the time grid of the original's ODE solver, `guidance` the rate of
    classifier-free guidance. `noise_frames` frames of start noise are the most there can be.
    `heads` are those of the estimator's attention, on which the memory of a call depends.
    """

    steps: Few
    schedule: Schedule
    guidance: Ratio
    mels: Few
    noise_frames: Size
    heads: Few

    def frames(self, tokens: int) -> int:
        """Mel frames of so many tokens: as many, unless a kind says otherwise."""
        return tokens

    def prompt_lengths(self, tokens: int, frames: int) -> tuple[int, int]:
        """How many tokens and mel frames of a recording are its prompt: all, unless a kind says."""
        return tokens, frames

    def axes(self, tokens: int) -> Mapping[str, int]:
        """Lengths of named axes of its networks for so many tokens, beside frames and samples."""
        return {}

    def networks(self, host: "HostLoops") -> Mapping[str, Signature]:
        """Embedding of times and estimator; the encoder is a kind's own."""
        mel = ("f", (1, self.mels, None))
        time = Signature({"t": ("f", (None,))}, {"shift": ("f", (None, None))})
        given = {"x": mel, "mu": ("f", (None, self.mels, None))}
        others = dict.fromkeys(("cond", "spk", "step", "shift", "chunk"))
        estimator = Signature({**given, **others}, {"velocity": None, "next": None})
        return {"time_embedding": time, "estimator": estimator}

    def problems(self, host: "HostLoops") -> Iterator[str]:
        """Start noise that does not fit into memory."""
        if self.mels * self.noise_frames > LARGEST:
            yield "its noise does not fit into memory"


class VocoderPart(HostPart, frozen=True):
    """How a mel spectrogram becomes audio, `frame` samples a mel frame."""

    frame: Size

    def axes(self, frames: int) -> Mapping[str, int]:
        """Lengths of named axes of its networks for so many frames, beside frames and samples."""
        return {}


class SchedulePart(HostPart, frozen=True):
    """When a stream has enough tokens for its next chunk, and how chunks are joined."""

    @property
    def continued_end(self) -> bool:
        """Whether the last chunk goes on from finished ones where a runtime can."""
        return False

    def ending(self, *, continued: bool) -> "SchedulePart":
        """The same with another end; raises UsageError if its last chunk cannot go on."""
        if continued:
            raise UsageError(f"the last chunk of {self.kind} cannot go on from finished ones")
        return self


class PromptPart(HostPart, frozen=True):
    """How a recording, read at `read_at` Hz, becomes the mel of a prompt, of `mels` bands."""

    mels: Few
    read_at: Rate

    def problems(self, host: "HostLoops") -> Iterator[str]:
        """Another number of bands than the flow decoder continues."""
        if self.mels != host.flow.mels:
            yield "not as many mels as the flow decoder's"


class HostLoops(Struct, frozen=True):
    """Everything that a device's loops need to know of a model, besides its networks."""

    text: TextPart
    language_model: LanguageModelPart
    flow: FlowPart
    vocoder: VocoderPart
    schedule: SchedulePart
    prompt: PromptPart

    def parts(self) -> dict[str, HostPart]:
        """The parts by name."""
        return {name: getattr(self, name) for name in self.__struct_fields__}

    def networks(self) -> dict[str, tuple[str, Signature]]:
        """Every network that the loops call, by role: the part that calls it, and its signature."""
        return {
            role: (name, signature)
            for name, part in self.parts().items()
            for role, signature in part.networks(self).items()
        }

    def problems(self) -> Iterator[str]:
        """What of the parts does not fit together, a line each."""
        for name, part in self.parts().items():
            yield from (f"{name}: {problem}" for problem in part.problems(self))

    @classmethod
    def read(cls, data: bytes) -> Self:
        """The record of JSON; raises UnsupportedError for a kind that there is no module for.

        msgspec.ValidationError says what else is wrong with it.
        """
        raw = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        if unknown := sorted(raw.keys() ^ set(cls.__struct_fields__)):
            raise msgspec.ValidationError(f"host.{unknown[0]} is missing or unknown")
        read: dict[str, Any] = {}
        for part, value in raw.items():
            kind = msgspec.json.decode(value, type=_Kind).kind
            known = discovery.names(f"{PACKAGE}.{part}")
            if kind not in known:
                raise UnsupportedError(
                    f"host.{part}: {discovery.unknown('kind', kind, known)}; update edgepack"
                )
            read[part] = msgspec.json.decode(value, type=_record(part, kind))
        return cls(**read)


class _Kind(msgspec.Struct):
    """What is looked at first."""

    kind: str


def _record(part: str, kind: str) -> type[HostPart]:
    return cast(type[HostPart], _module(part, kind).Record)


def strategy(part: str, settings: HostPart) -> Any:
    """`STRATEGY` of the module of a part's kind."""
    return _module(part, settings.kind).STRATEGY


def _module(part: str, kind: str) -> Any:
    return importlib.import_module(f"{PACKAGE}.{part}.{kind}")
