"""Growing streams with networks that are functions: which tokens and frames are asked for when."""

from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from fakes import FLOW, FRAME, Fake, fed
from support import COSYVOICE3, GOLDEN

from edgepack.errors import ResourceError, UsageError
from edgepack.runtime.engines.session import Feeds
from edgepack.runtime.stages.flow import Condition
from edgepack.runtime.stages.noise import standard_normal, uniform
from edgepack.runtime.strategies.flow import look_ahead
from edgepack.runtime.strategies.flow.look_ahead import LookAhead
from edgepack.runtime.strategies.schedule.growing_mel import GrowingMel, Record
from edgepack.runtime.strategies.vocoder import causal_hift
from edgepack.runtime.strategies.vocoder.causal_hift import CausalHiFT

AHEAD, PITCH_AHEAD, CONTEXT, PARTIALS = 4, 3, 6, 3
LAG = AHEAD + PITCH_AHEAD + 1
SETTINGS = causal_hift.Record(
    frame=FRAME, partials=PARTIALS, context=CONTEXT, ahead=AHEAD, pitch_ahead=PITCH_AHEAD,
    overhang=8, noise_seed=0, noise_skip=80 * 15000, noise_frames=400,
)  # fmt: skip
SEEN = look_ahead.Record(**msgspec.structs.asdict(FLOW))
HOPS = Record(first_hop=25, max_hop=100, growth=2)


def vocoder() -> CausalHiFT:
    """Audio is the first band of the mel, once a sample of its frame."""

    def excite(feeds: Feeds) -> dict[str, np.ndarray]:
        mel = feeds["mel"][:, :, : feeds["mel"].shape[2] - PITCH_AHEAD]
        assert feeds["noise"].shape == (1, FRAME * mel.shape[2], PARTIALS)
        return {"source": np.repeat(mel[:, :1], FRAME, 2), "f0": mel[:, 0]}

    def generate(feeds: Feeds) -> dict[str, np.ndarray]:
        frames = feeds["mel"].shape[2] - AHEAD
        assert feeds["source"].shape[2] == frames * FRAME + SETTINGS.overhang
        np.testing.assert_array_equal(
            feeds["source"][0, 0, : frames * FRAME : FRAME], feeds["mel"][0, 0, :frames]
        )
        return {"audio": np.repeat(feeds["mel"][:, 0, :frames], FRAME, 1)}

    return CausalHiFT(SETTINGS, Fake(generate), excitation=Fake(excite))


def flow() -> LookAhead:
    """A mel of the tokens' numbers."""

    def look(feeds: Feeds) -> dict[str, np.ndarray]:
        assert set(feeds) == {"tokens", "look_ahead", "speaker"}
        tokens = feeds["tokens"][:, : -FLOW.look_ahead]
        rows = np.repeat(tokens, FLOW.ratio, 1).astype(np.float32)
        mu = np.repeat(rows[:, None], FLOW.mels, 1)
        return {"mu": mu, "spk": np.zeros((1, FLOW.mels), np.float32)}

    def time(feeds: Feeds) -> dict[str, np.ndarray]:
        return {"shift": feeds["t"][:, None]}

    def estimate(feeds: Feeds) -> dict[str, np.ndarray]:
        velocity = feeds["mu"] - feeds["x"]
        return {"velocity": velocity, "next": feeds["mu"][:1]}

    return LookAhead(SEEN, Fake(look), Fake(time), Fake(estimate))


def mel_of(frames: int) -> np.ndarray:
    return np.arange(4 * frames, dtype=np.float32).reshape(1, 4, frames)


@pytest.mark.parametrize("window", [7, 20, 1000])
@pytest.mark.parametrize("start", [0, 33])
def test_audio_from_any_frame_in_windows(window: int, start: int) -> None:
    subject, mel = replace(vocoder(), window=window), mel_of(100)
    for final, end in ((True, 100), (False, 100 - LAG)):
        sound = subject.synthesize(mel, subject.noise(100, None), final=final, start=start)
        np.testing.assert_array_equal(sound.audio[0, ::FRAME], np.arange(start, end))
    widths = {m.shape[2] for m in fed(subject.vocoder, "mel")}
    assert max(widths) <= min(window, 100) + CONTEXT + 1 + AHEAD
    assert len(widths) <= 2  # one of the mel that ends, one of the other


@pytest.mark.parametrize("frames", [1, PITCH_AHEAD, PITCH_AHEAD + 1, LAG])
def test_a_mel_that_goes_on_may_be_too_short_for_audio(frames: int) -> None:
    subject = vocoder()
    sound = subject.synthesize(mel_of(frames), subject.noise(frames, None), final=False)
    assert sound.audio.shape == (1, 0)
    assert sound.source.shape == (1, 1, FRAME * max(0, frames - PITCH_AHEAD))
    assert subject.synthesize(mel_of(frames), subject.noise(frames, None)).audio.size > 0


def test_the_end_is_zeros_after_the_mel_and_a_mirrored_excitation() -> None:
    subject, mel = vocoder(), mel_of(5)
    source = np.arange(5.0 * FRAME, dtype=np.float32)[None, None]
    feeds = subject.generator_feeds(mel, source, final=True)
    np.testing.assert_array_equal(feeds["mel"][:, :, 5:], np.zeros((1, 4, AHEAD)))
    np.testing.assert_array_equal(feeds["source"][0, 0, -8:], source[0, 0, -2:-10:-1])


def test_noise_is_the_same_for_every_utterance() -> None:
    subject = vocoder()
    noise = subject.noise(3, np.random.default_rng(1))
    assert noise.shape == (1, 3 * FRAME, PARTIALS)
    assert 0 <= noise.min() < 0.01
    assert 0.99 < noise.max() < 1
    np.testing.assert_array_equal(noise, subject.noise(3, np.random.default_rng(2)))
    longer = subject.noise(5, np.random.default_rng(1))
    np.testing.assert_array_equal(noise, longer[:, : 3 * FRAME])
    assert not subject.noise(3, None).any()
    with pytest.raises(UsageError, match="401 mel frames are more than the 400"):
        subject.noise(401, np.random.default_rng(1))


def test_uniform_noise_goes_on_where_the_normal_ended() -> None:
    with np.load(GOLDEN / "common" / "noise.npz") as recorded:
        after, tail = recorded["rand_after"], recorded["rand_noise_tail"]
    np.testing.assert_array_equal(uniform(0, 80 * 15000, after.shape), after)
    np.testing.assert_allclose(standard_normal(0, (1, 80, 15000))[0, -1, -64:], tail, atol=1e-6)
    np.testing.assert_array_equal(uniform(0, 80 * 15000 + 5, (2, 3)), after[5:11].reshape(2, 3))


@pytest.mark.parametrize("prompt", [0, 11])
@pytest.mark.parametrize("count", [1, 27, 28, 150])
def test_every_token_is_heard_once_and_in_order(count: int, prompt: int) -> None:
    tokens = list(range(1, count + 1))
    mel = np.zeros((FLOW.ratio * prompt, FLOW.mels), np.float32)
    condition = Condition(np.ones(2, np.float32), [500] * prompt, mel)
    stream = GrowingMel(HOPS, flow(), vocoder())
    chunks = list(stream.run(tokens, condition, None))
    heard = np.concatenate([chunk.audio for chunk in chunks], 1)[0, ::FRAME]
    np.testing.assert_array_equal(heard, np.repeat(tokens, FLOW.ratio))
    assert sum(chunk.mel.shape[2] for chunk in chunks) == FLOW.ratio * count
    assert (len(chunks) > 1) == (count - 3 >= 25 + (-prompt % 25))


@pytest.mark.parametrize("model", COSYVOICE3)
@pytest.mark.parametrize(
    ("run", "count", "hop"),
    [("stream", 150, None), ("stream_again", 150, 100), ("short_stream", 20, None)],
)
def test_chunks_are_those_of_the_original(
    model: str, run: str, count: int, hop: int | None
) -> None:
    v = np.load(GOLDEN / model / "tts.npz")
    prompt = len(v["tts_prompt_token"])
    condition = Condition(
        np.ones(2, np.float32),
        [500] * prompt,
        np.zeros((FLOW.ratio * prompt, FLOW.mels), np.float32),
    )
    stream = GrowingMel(HOPS, flow(), vocoder())
    chunks = list(stream.run([1] * count, condition, None, hop))
    assert [c.audio.shape[1] for c in chunks] == v[f"{run}_chunk_samples"].tolist()
    if f"{run}_hift_frames" in v:
        frames = np.cumsum([c.mel.shape[2] for c in chunks])
        assert frames.tolist() == v[f"{run}_hift_frames"].tolist()


def test_the_last_chunk_alone_is_decoded_with_full_attention() -> None:
    subject = flow()
    stream = GrowingMel(HOPS, subject, vocoder())
    list(stream.run(range(1, 101), Condition(np.ones(2, np.float32)), None))
    assert isinstance(subject.estimator, Fake)
    spans = [
        (int(chunk[0]), x.shape[2])
        for chunk, x in zip(
            fed(subject.estimator, "chunk"), fed(subject.estimator, "x"), strict=True
        )
    ]
    assert sorted(set(spans)) == [(50, 50), (50, 150), (200, 200)]
    assert all(a[1] <= b[1] for a, b in pairwise(spans))


def test_attention_of_twice_the_heads_takes_twice_the_memory() -> None:
    tokens, nobody = [1] * 50, Condition(np.ones(2, np.float32))
    enough = replace(flow(), memory=16 * FLOW.heads * 100**2)
    enough.require_room(tokens, nobody)
    settings = msgspec.structs.replace(enough.settings, heads=2 * FLOW.heads)
    with pytest.raises(ResourceError, match="100 mel frames"):
        replace(enough, settings=settings).require_room(tokens, nobody)
