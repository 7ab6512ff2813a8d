"""Families: what a checkpoint says has to fit what its networks are."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest
from support import COSYVOICE1, COSYVOICE3, RECORDED, Checkpoints
from tokenizers import Tokenizer

from edgepack import discovery
from edgepack.builder.planning import open_source
from edgepack.bundle.host import HostLoops
from edgepack.model.checkpoint.folder import Checkpoint
from edgepack.model.family import PACKAGE, Family, recognise

MODELS = ("demo", "tiny", *COSYVOICE1, *RECORDED, *COSYVOICE3)
NAMES = discovery.names(PACKAGE)


@pytest.fixture(params=MODELS)
def known(request: pytest.FixtureRequest, checkpoints: Checkpoints) -> tuple[Checkpoint, Family]:
    checkpoint = open_source(checkpoints(request.param)).checkpoint
    return checkpoint, recognise(checkpoint)[1]


def test_every_family_has_a_checkpoint_here(checkpoints: Checkpoints) -> None:
    assert {open_source(checkpoints(model)).family_name for model in MODELS} == set(NAMES)


def test_families_are_told_apart_by_the_networks_they_declare() -> None:
    marks = [cast(Family, discovery.load(PACKAGE, name, "FAMILY")).networks for name in NAMES]
    assert len({tuple(mark.items()) for mark in marks}) == len(marks)
    assert all(marks)


def test_networks_are_named_and_called_by_their_own_inputs(
    known: tuple[Checkpoint, Family],
) -> None:
    checkpoint, family = known
    names = []
    uses = {}
    for graph in family.graphs(checkpoint):
        names.append(graph.name)
        uses[graph.name] = graph.use
        inputs = {str(value.name) for value in graph.model.graph.inputs}
        outputs = {str(value.name) for value in graph.model.graph.outputs}
        cached = {state.input for state in graph.states}
        assert cached <= inputs
        assert {state.output for state in graph.states} < outputs
        assert graph.calls
        for feeds in graph.calls:
            assert set(feeds) == inputs - cached
        assert all(state.shape.count(0) == 1 for state in graph.states)
        assert graph.parameters > 0
    assert len(set(names)) == len(names)
    assert list(uses.items()) == list(family.stages.items())
    called = family.host(checkpoint).networks()
    assert sorted(use.role for use in uses.values()) == sorted(called)


def test_host_settings_fit_the_tokenizer_and_the_voices(known: tuple[Checkpoint, Family]) -> None:
    checkpoint, family = known
    host = family.host(checkpoint)
    assert isinstance(host, HostLoops)
    assert list(host.problems()) == []
    tokenizer = Tokenizer.from_str(family.tokenizer(checkpoint))
    end = host.text.end_of_prompt
    assert host.text.unknown(tokenizer.get_vocab()) == ""
    assert tokenizer.decode(tokenizer.encode(end).ids, skip_special_tokens=False) == end
    model = host.language_model
    assert 0 < model.min_ratio < model.max_ratio
    assert model.masked_before_min >= model.speech_tokens
    for voice in family.voices(checkpoint).values():
        assert voice.speaker.ndim == 1
        assert np.isfinite(voice.speaker).all()
        if voice.prompt:
            frames, mels = voice.prompt.mel.shape
            assert mels == host.flow.mels
            count = len(voice.prompt.tokens)
            assert (count, frames) == host.flow.prompt_lengths(count, frames)
            assert voice.prompt.tokens.max() < model.speech_tokens


def test_sources_are_files_of_the_checkpoint(known: tuple[Checkpoint, Family]) -> None:
    checkpoint, family = known
    sources = family.sources(checkpoint)
    assert checkpoint.config_name in sources
    assert set(family.enrolment(checkpoint).values()) <= set(sources)
    assert len(set(sources)) == len(sources)
    for name in sources:
        assert not Path(name).is_absolute()
        assert checkpoint.has(name)
