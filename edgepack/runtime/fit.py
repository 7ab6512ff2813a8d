"""Whether voices, tokenizer and self-test of a bundle fit its networks: widths, ids, names.

The shapes of inputs and outputs are those of the recorded self-test. Networks are checked against
them when they are opened (`runtime.loading.open_stage`), all other parts of the bundle here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgepack.bundle import arrays, voices
from edgepack.bundle.arrays import AnyShape
from edgepack.bundle.bundle import Bundle
from edgepack.bundle.manifest import Manifest, State
from edgepack.bundle.stages import Role
from edgepack.bundle.voices import Voice
from edgepack.errors import IntegrityError

RecordedCalls = Sequence[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]]
Shapes = Mapping[str, AnyShape]


def recorded(bundle: Bundle) -> Mapping[str, RecordedCalls]:
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
    """Sizes that the networks take: rows of the tables, length of a speaker embedding."""

    text_rows: int
    speech_rows: int
    speaker: int


def widths(bundle: Bundle, calls: Mapping[str, RecordedCalls]) -> Widths:
    """The widths of a bundle's networks; raises IntegrityError if they do not fit its manifest.

    A table has as many rows as its parameters say.
    """
    manifest, where = bundle.manifest, bundle.path(bundle.manifest.self_test)
    by_role = {stage.use.role: calls[name] for name, stage in manifest.stages.items()}
    for role, (_, signature) in manifest.host.networks().items():
        expected = {**signature.inputs, **signature.outputs}
        known = {name: shape for name, shape in expected.items() if shape is not None}
        for feeds, outputs in by_role[role]:
            if problem := arrays.mismatch({**feeds, **outputs}, known):
                raise IntegrityError(f"{where}: {manifest.stage_of(role)}: {problem}")
    for part, settings in manifest.host.parts().items():
        if problem := settings.misfit(by_role):
            raise IntegrityError(f"{where}: {part}: {problem}")
    found = Widths(
        text_rows=_rows(manifest, by_role, "text_table"),
        speech_rows=_rows(manifest, by_role, "speech_table"),
        speaker=_speaker(where, by_role),
    )
    logits = by_role["language_model"][0][1]["logits"].shape[1]
    if problem := manifest.host.language_model.beyond(found.speech_rows, logits):
        raise IntegrityError(f"{bundle.folder}: {problem}")
    return found


def _rows(manifest: Manifest, calls: Mapping[Role, RecordedCalls], table: Role) -> int:
    """Rows of a table of embeddings, of which the self-test shows the width."""
    width = calls[table][0][1]["embeddings"].shape[2]
    return manifest.stages[manifest.stage_of(table)].parameters // max(width, 1)


def _speaker(where: Path, calls: Mapping[Role, RecordedCalls]) -> int:
    """The length of the speaker embedding that networks are given, 0 if none is.

    Raises IntegrityError if they are given several.
    """
    given = (feeds["speaker"] for of in calls.values() for feeds, _ in of if "speaker" in feeds)
    lengths = {speaker.shape[1] for speaker in given}
    if len(lengths) > 1:
        raise IntegrityError(f"{where}: speaker embeddings of {sorted(lengths)} values")
    return next(iter(lengths), 0)


def require_fit(bundle: Bundle, tokenizer: Any) -> dict[str, Voice]:
    """The voices of a bundle.

    Raises IntegrityError if one, or the tokenizer, does not fit its networks.
    """
    found = widths(bundle, recorded(bundle))
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    largest = max(vocabulary.values(), default=-1)
    if largest >= found.text_rows:
        raise IntegrityError(
            f"{bundle.path(bundle.manifest.tokenizer)}: has ids up to {largest}, the text "
            f"embedding only {found.text_rows} rows; build the bundle again"
        )
    if lacking := bundle.manifest.host.text.unknown(vocabulary):
        raise IntegrityError(
            f"{bundle.path(bundle.manifest.tokenizer)}: does not know the end-of-prompt token "
            f"{lacking!r}; build the bundle again"
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


def require_shapes(name: str, network: Shapes, calls: RecordedCalls, where: object) -> None:
    """Raise IntegrityError if an engine's network has other inputs than those of the self-test."""
    for feeds, _ in calls:
        for given in feeds:
            if given not in network:
                raise IntegrityError(f"{where}: {name} has no input {given}")
            if not arrays.fits(feeds[given].shape, network[given]):
                raise IntegrityError(
                    f"{where}: {name} takes {given} of {list(network[given])}, the self-test has "
                    f"{list(feeds[given].shape)}"
                )


def require_caches(stage: str, network: Shapes, states: Sequence[State], where: object) -> None:
    """Raise IntegrityError if a manifest's caches are not those of an engine's network.

    Engines that keep caches to themselves have no inputs for them.
    """
    for state in states:
        lengths = network.get(state.input)
        # A length of 0 is before the first call: the axis that grows has none of its own, and
        # neither has that of rows, of which a manifest's caches are one.
        if lengths is not None and not (
            arrays.fits(state.shape, lengths)
            and all(own <= 1 for own, n in zip(state.shape, lengths, strict=True) if n is None)
        ):
            raise IntegrityError(
                f"{where}: {stage} takes {state.input} of {list(lengths)}, the manifest says "
                f"{list(state.shape)}"
            )
