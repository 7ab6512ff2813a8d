"""Whether voices, tokenizer and self-test of a bundle fit its networks: widths, ids, names.

What networks take and give is seen in the self-test: each engine is held to it when it opens a
network (`runtime.loading.open_stage`), and all the rest of the bundle here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepack import arrays, voices
from edgepack.arrays import Shape
from edgepack.bundle import Bundle
from edgepack.consistency import STAGES
from edgepack.errors import IntegrityError
from edgepack.manifest import State
from edgepack.voices import Voice

Calls = Sequence[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]]
Shapes = Mapping[str, Shape]


def recorded(bundle: Bundle) -> Mapping[str, Calls]:
    """Feeds and outputs of each call of a bundle's self-test, by stage.

    Raises IntegrityError unless every stage has calls with its own inputs and outputs.
    """
    name = bundle.manifest.self_test
    where = bundle.path(name)
    found: dict[str, dict[int, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]] = {}
    for entry, value in arrays.parse(bundle.read(name), where, "a self-test file").items():
        try:
            stage, number, side, array = entry.split("/")
            pair = found.setdefault(stage, {}).setdefault(int(number), ({}, {}))
            pair[{"in": 0, "out": 1}[side]][array] = value
        except (ValueError, KeyError):
            raise IntegrityError(f"{where}: not a self-test file ({entry!r} in it)") from None
    calls = {stage: [of[number] for number in sorted(of)] for stage, of in found.items()}
    if missing := sorted(bundle.manifest.stages.keys() - calls.keys()):
        raise IntegrityError(f"{where}: no self-test for {missing[0]}; build it again")
    for stage, pairs in calls.items():
        known = bundle.manifest.stages.get(stage)
        for feeds, outputs in pairs:
            if not known or feeds.keys() != {*known.inputs} or outputs.keys() != {*known.outputs}:
                raise IntegrityError(f"{where}: calls of {stage} are not of this bundle's networks")
    return calls


@dataclass(frozen=True)
class Widths:
    """What the networks of a bundle take: rows of tables, and the length of a speaker embedding."""

    text_rows: int
    speech_rows: int
    speaker: int


def widths(bundle: Bundle, calls: Mapping[str, Calls]) -> Widths:
    """The widths of a bundle's networks; raises IntegrityError if they do not fit its manifest.

    A table has as many rows as its parameters say.
    """
    manifest = bundle.manifest
    mels, frame = manifest.flow.mels, manifest.vocoder.frame
    wanted: dict[str, dict[str, tuple[str, Shape]]] = {
        "text_embedding": {"ids": ("i", (1, None)), "embeddings": ("f", (1, None, None))},
        "speech_embedding": {"ids": ("i", (1, None)), "embeddings": ("f", (1, None, None))},
        "speech_lm": {"embeddings": ("f", (1, None, None)), "logits": ("f", (1, None))},
        "flow_encoder": {
            "tokens": ("i", (1, None)),
            "speaker": ("f", (1, None)),
            "mu": ("f", (1, mels, None)),
            "spk": ("f", (1, mels)),
        },
        "flow_time": {"t": ("f", (None,)), "shift": ("f", (None, None))},
        "flow_estimator": {"x": ("f", (1, mels, None)), "mu": ("f", (None, mels, None))},
        "hift_source": {
            "mel": ("f", (1, mels, None)),
            "noise": ("f", (1, None, manifest.vocoder.partials)),
        },
        "hift": {"mel": ("f", (1, mels, None)), "source": ("f", (1, 1, None))},
    }
    where = bundle.path(manifest.self_test)
    for stage, expected in wanted.items():
        for feeds, outputs in calls[stage]:
            if problem := arrays.mismatch({**feeds, **outputs}, expected):
                raise IntegrityError(f"{where}: {stage}: {problem}")
    for feeds, _ in calls["hift"]:
        if feeds["source"].shape[2] != frame * feeds["mel"].shape[2]:
            raise IntegrityError(f"{where}: hift: not {frame} samples a frame of mel")
    tables = calls["text_embedding"][0][1], calls["speech_embedding"][0][1]
    embedded = {of["embeddings"].shape[2] for of in (*tables, calls["speech_lm"][0][0])}
    if len(embedded) != 1 or 0 in embedded:
        raise IntegrityError(f"{where}: embeddings and language model differ in width")
    (width,) = embedded
    found = Widths(
        text_rows=manifest.stages["text_embedding"].parameters // width,
        speech_rows=manifest.stages["speech_embedding"].parameters // width,
        speaker=calls["flow_encoder"][0][0]["speaker"].shape[1],
    )
    lm, logits = manifest.language_model, calls["speech_lm"][0][1]["logits"].shape[1]
    if max(lm.start, lm.task) >= found.speech_rows:
        raise IntegrityError(f"{bundle.folder}: start and task are no rows of speech_embedding")
    if max(lm.end, lm.fill, lm.masked_before_min) >= logits:
        raise IntegrityError(f"{bundle.folder}: end and fill are no ids of speech_lm")
    return found


def require_fit(bundle: Bundle, tokenizer: Any) -> dict[str, Voice]:
    """The voices of a bundle.

    Raises IntegrityError if one, or the tokenizer, does not fit its networks.
    """
    found = widths(bundle, recorded(bundle))
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= found.text_rows:
        raise IntegrityError(
            f"{bundle.path(bundle.manifest.tokenizer)}: has ids up to {largest}, the text "
            f"embedding only {found.text_rows} rows; build the bundle again"
        )
    if tokenizer.token_to_id(bundle.manifest.end_of_prompt) is None:
        raise IntegrityError(
            f"{bundle.path(bundle.manifest.tokenizer)}: does not know the end-of-prompt token "
            f"{bundle.manifest.end_of_prompt!r}; build the bundle again"
        )
    known = {name: voices.read(bundle, name)[1] for name in bundle.manifest.voices}
    for name, voice in known.items():
        require_voice(bundle, voice, found, f"voice {name!r}")
    return known


def require_voice(bundle: Bundle, voice: Voice, found: Widths, what: str) -> None:
    """Raise IntegrityError if the networks of a bundle cannot be given a voice."""
    problem = ""
    try:
        voices.fitting(voice, bundle.manifest)
    except ValueError as error:
        problem = str(error)
    if not problem and voice.speaker.shape[0] != found.speaker:
        problem = f"has a speaker embedding of {voice.speaker.shape[0]}, not {found.speaker} values"
    if not problem and voice.prompt and not arrays.within(voice.prompt.text, found.text_rows):
        problem = f"has ids of text beyond the {found.text_rows} of the text embedding"
    if problem:
        raise IntegrityError(f"{bundle.folder}: {what} does not fit its networks: {problem}")


def require_shapes(stage: str, network: Shapes, calls: Calls, where: object) -> None:
    """Raise IntegrityError if an engine's network has other inputs than those of the self-test."""
    inputs = STAGES[stage][0] if stage in STAGES else calls[0][0].keys()
    for feeds, _ in calls:
        for name in inputs:
            if name not in network:
                raise IntegrityError(f"{where}: {stage} has no input {name}")
            if not arrays.fits(feeds[name].shape, network[name]):
                raise IntegrityError(
                    f"{where}: {stage} takes {name} of {list(network[name])}, the self-test has "
                    f"{list(feeds[name].shape)}"
                )


def require_caches(stage: str, network: Shapes, states: Sequence[State], where: object) -> None:
    """Raise IntegrityError if a manifest's caches are not those of an engine's network.

    Engines that keep caches to themselves have no inputs for them.
    """
    for state in states:
        lengths = network.get(state.input)
        # A length of 0 is before the first call; the axis that grows has no length of its own.
        if lengths is not None and not arrays.fits(
            tuple(n for n in state.shape if n), tuple(n for n in lengths if n is not None)
        ):
            raise IntegrityError(
                f"{where}: {stage} takes {state.input} of {list(lengths)}, the manifest says "
                f"{list(state.shape)}"
            )
