"""The vocoder's host side, and audio in chunks: how long, from which tokens, how joined."""

import itertools

import numpy as np
import pytest
from fakes import FLOW, FRAME, fed, flow_decoder, vocoder
from hypothesis import given
from hypothesis import strategies as st
from repeatable import repeatable
from support import GOLDEN, RECORDED

from edgepack.runtime.stages.flow import Condition
from edgepack.runtime.strategies.schedule.growing_chunks import GrowingChunks, Record

SETTINGS = Record(first_hop=25, max_hop=100, growth=2, mel_overlap=8)
OVERLAP = SETTINGS.mel_overlap * FRAME
TOKEN = FLOW.ratio * FRAME
SPEAKER = np.ones(2, np.float32)


def stream() -> GrowingChunks:
    return GrowingChunks(SETTINGS, flow_decoder(), vocoder())


def condition(prompt: int = 0) -> Condition:
    mel = np.zeros((prompt * FLOW.ratio, FLOW.mels), np.float32)
    return Condition(SPEAKER, [0] * prompt, mel) if prompt else Condition(SPEAKER)


def lengths(count: int, prompt: int = 0, hop: int | None = None) -> list[int]:
    chunks = stream().run([1] * count, condition(prompt), None, hop)
    return [chunk.audio.shape[1] for chunk in chunks]


@pytest.mark.parametrize("model", RECORDED)
@pytest.mark.parametrize(
    ("run", "count", "hop"),
    [("stream", 150, None), ("stream_again", 150, 100), ("short_stream", 20, None)],
)
def test_chunks_are_those_of_the_original(
    model: str, run: str, count: int, hop: int | None
) -> None:
    v = np.load(GOLDEN / model / "tts.npz")
    prompt = len(v["tts_prompt_token"])
    assert lengths(count, prompt, hop) == v[f"{run}_chunk_samples"].tolist()
    if f"{run}_hift_frames" in v:
        chunks = stream().run([1] * count, condition(prompt), None, hop)
        assert [c.mel.shape[2] for c in chunks] == v[f"{run}_hift_frames"].tolist()


def test_hops_grow_up_to_the_largest() -> None:
    *hops, last = (samples / TOKEN for samples in lengths(500))
    assert hops == [25 - 4, 50, 100, 100, 100, 100]  # four tokens wait for the cross-fade
    assert sum(hops) + last == 500


@repeatable
@given(st.integers(1, 400), st.integers(0, 60), st.sampled_from([None, 1, 10, 100]))
def test_all_tokens_are_heard(count: int, prompt: int, hop: int | None) -> None:
    assert sum(lengths(count, prompt, hop)) == count * TOKEN


def test_no_token_gives_no_chunk() -> None:
    assert lengths(0) == []


@pytest.mark.parametrize(("prompt", "first"), [(0, 25), (11, 39), (25, 25), (26, 49)])
def test_first_chunk_comes_as_soon_as_its_tokens_are_there(prompt: int, first: int) -> None:
    tokens = itertools.count(1)
    chunk = next(stream().run(tokens, condition(prompt), None))
    assert next(tokens) == first + FLOW.look_ahead + 1
    assert chunk.audio.shape[1] == first * TOKEN - OVERLAP


def test_chunks_join_without_gap_or_repetition() -> None:
    tokens = list(range(1, 151))
    audio = np.concatenate([c.audio for c in stream().run(tokens, condition(11), None)], 1)[0]
    gain = audio / np.repeat(tokens, TOKEN)
    window = np.hamming(2 * OVERLAP)
    faded = window[:OVERLAP] + window[OVERLAP:]
    for end in (39 * TOKEN, (39 + 50) * TOKEN):
        np.testing.assert_allclose(gain[end - OVERLAP : end], faded, rtol=1e-5)
        gain[end - OVERLAP : end] = 1
    np.testing.assert_allclose(gain, 1, rtol=1e-6)


def test_excitation_goes_on_from_the_chunk_before() -> None:
    subject = stream()
    list(subject.run([1] * 150, condition(), None))
    sources = [source[0, 0] for source in fed(subject.vocoder.vocoder, "source")]
    assert [source[0] for source in sources] == [1, 1, 2]
    for number, source in enumerate(sources[1:], 2):
        assert (source[:OVERLAP] == number - 1).all()
        assert (source[OVERLAP:] == number).all()


def test_only_the_last_chunk_attends_to_everything() -> None:
    subject = stream()
    list(subject.run([1] * 100, condition(11), None))
    ahead = [value.tolist() for value in fed(subject.flow.encoder, "look_ahead")]
    chunk = [value.tolist() for value in fed(subject.flow.encoder, "chunk")]
    sizes = [tokens.shape[1] for tokens in fed(subject.flow.encoder, "tokens")]
    assert ahead == [[1], [1], [0]]
    assert chunk == [[25], [25], [111]]
    assert sizes == [11 + 39 + 3, 11 + 39 + 50 + 3, 111 + 3]


def test_excitation_noise_is_drawn_on_request() -> None:
    subject = vocoder()
    assert not subject.noise(3, None).any()
    drawn = [subject.noise(3, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert drawn[0].shape == (1, 3 * FRAME, 9)
    assert drawn[0].dtype == np.float32
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    assert abs(drawn[0].std() - 1) < 0.05


def test_known_excitation_replaces_the_first_samples() -> None:
    subject = vocoder()
    mel = np.arange(4 * 5, dtype=np.float32).reshape(1, 4, 5)
    noise = subject.noise(5, None)
    known = np.full((1, 1, FRAME), 7, np.float32)
    sound = subject.synthesize(mel, noise, known)
    assert np.array_equal(sound.source[0, 0], np.repeat([7, 1, 1, 1, 1], FRAME))
    assert np.array_equal(fed(subject.vocoder, "source")[0], sound.source)
    assert np.array_equal(fed(subject.excitation, "noise")[0], noise)
    assert np.array_equal(sound.f0, mel[:, 1])
    assert sound.audio.shape == (1, 5 * FRAME)
    assert (subject.synthesize(mel, noise).source == 2).all()
