"""The host side of the flow decoder: time grid, feeds, integration, prompt, speed."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from fakes import FLOW, Arrays, Fake, fed, flow_decoder
from hypothesis import given
from hypothesis import strategies as st
from repeatable import repeatable
from support import COSYVOICE3, GOLDEN, RECORDED

from edgepack.errors import GateError, ResourceError, UsageError
from edgepack.runtime.engines.session import Feeds
from edgepack.runtime.stages.flow import Condition, change_speed
from edgepack.runtime.stages.noise import standard_normal
from edgepack.runtime.stages.solver import euler, time_steps

SPEAKER = np.array([3.0, 4.0], np.float32)
FRAMES = 9


def one(shape: tuple[int, ...], value: float = 1.0) -> np.ndarray:
    return np.full(shape, value, np.float32)


def constant_velocity(feeds: Feeds) -> Arrays:
    """The same velocity under every condition."""
    velocity = np.full((len(feeds["step"]), *feeds["x"].shape[1:]), 2, np.float32)
    return {"next": feeds["x"] + feeds["step"].sum() * 2, "velocity": velocity}


@pytest.mark.parametrize("steps", [5, 10])
@pytest.mark.parametrize("model", [*RECORDED, *COSYVOICE3])
def test_time_steps_are_those_of_the_original(model: str, steps: int) -> None:
    starts = [start for start, _ in time_steps(steps, "cosine")]
    recorded = np.load(GOLDEN / model / "flow.npz")[f"cfm_t_n{steps}"]
    np.testing.assert_allclose(starts, recorded, rtol=0, atol=1e-7)


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_time_steps_go_from_zero_to_one(schedule: str, steps: int) -> None:
    pairs = time_steps(steps, schedule)
    starts, widths = np.array(pairs).T
    assert starts[0] == 0
    np.testing.assert_allclose(starts[1:], (starts + widths)[:-1], atol=1e-6)
    assert starts[-1] + widths[-1] == pytest.approx(1, abs=1e-6)
    if schedule == "linear":
        np.testing.assert_allclose(widths, 1 / steps, atol=1e-6)
    else:  # small steps first
        assert (np.diff(widths) > 0).all()


@pytest.mark.parametrize("chunked", [False, True])
def test_encoder_is_fed_everything_at_the_end(chunked: bool) -> None:
    feeds = flow_decoder().encoder_feeds([7, 8], SPEAKER, final=True, chunked=chunked)
    assert feeds["tokens"].tolist() == [[7, 8, 0, 0, 0]]
    assert feeds["look_ahead"].tolist() == [0]
    assert feeds["chunk"].tolist() == [FLOW.chunk if chunked else 2]
    assert feeds["speaker"].tolist() == [[3, 4]]
    kinds = {name: value.dtype.str[1:] for name, value in feeds.items()}
    assert kinds == {"tokens": "i8", "look_ahead": "f4", "chunk": "i8", "speaker": "f4"}


def test_encoder_looks_ahead_before_the_end() -> None:
    feeds = flow_decoder().encoder_feeds([5, 6, 7, 8], SPEAKER, final=False, chunked=True)
    assert feeds["tokens"].tolist() == [[5, 6, 7, 8]]
    assert feeds["look_ahead"].tolist() == [1]


@pytest.mark.parametrize("count", [0, 3])
def test_too_few_tokens_to_look_ahead_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match=f"{count} speech tokens are too few"):
        flow_decoder().encoder_feeds([1] * count, SPEAKER, final=False, chunked=True)


@pytest.mark.parametrize(("steps", "count"), [(None, FLOW.steps), (7, 7)])
@pytest.mark.parametrize("chunked", [False, True])
def test_solver_integrates_from_the_fixed_noise(
    steps: int | None, count: int, chunked: bool
) -> None:
    decoder = flow_decoder(constant_velocity)
    mu, cond = one((1, FLOW.mels, FRAMES)), one((1, FLOW.mels, FRAMES), 5)
    spk = one((1, FLOW.mels), 6)
    seen: list[tuple[np.ndarray, float]] = []
    solver = euler(FLOW, steps)
    end = decoder.solve(
        mu, spk, cond, solver=solver, chunked=chunked, observe=lambda x, t: seen.append((x, t))
    )
    noise = standard_normal(0, (1, FLOW.mels, FLOW.noise_frames))[:, :, :FRAMES]
    np.testing.assert_allclose(end, noise + 2, atol=1e-5)
    times = [start for start, _ in time_steps(count, "cosine")]
    assert [t for _, t in seen] == times
    assert np.array_equal(seen[0][0], noise)
    for name, value in {"mu": mu, "spk": spk, "cond": cond}.items():
        given = fed(decoder.estimator, name)
        assert len(given) == count
        assert all(np.array_equal(a, np.concatenate([value, 0 * value])) for a in given)
    assert fed(decoder.time_embedding, "t")[0].tolist() == times
    assert [shift.tolist() for shift in fed(decoder.estimator, "shift")] == [[[t]] for t in times]
    assert fed(decoder.estimator, "chunk")[0].tolist() == [50 if chunked else FRAMES]


def test_an_estimator_of_one_row_is_asked_row_by_row() -> None:
    """Whichever decoder it is put into: how many rows it takes is its own property."""

    def bent(feeds: Feeds) -> Arrays:
        velocity = feeds["mu"] - feeds["x"]
        return {"next": feeds["x"] + np.tensordot(feeds["step"], velocity, 1), "velocity": velocity}

    decoder = flow_decoder(bent)
    other = replace(decoder, estimator=Fake(bent, batches=False))
    one, two = (of.mel([4, 5], Condition(SPEAKER)) for of in (decoder, other))
    np.testing.assert_allclose(two, one, rtol=1e-5)
    assert {len(rows) for rows in fed(decoder.estimator, "mu")} == {2}
    assert {len(rows) for rows in fed(other.estimator, "mu")} == {1}


def test_another_network_of_times_is_asked() -> None:
    """What the one before it said is not kept for it."""
    decoder = flow_decoder(
        lambda feeds: {"next": feeds["x"] * feeds["shift"], "velocity": feeds["mu"]}
    )
    decoder.mel([4, 5], Condition(SPEAKER))
    broken = replace(
        decoder, time_embedding=Fake(lambda feeds: {"shift": feeds["t"][:, None] * np.nan})
    )
    with pytest.raises(GateError, match="NaN or infinite mel"):
        broken.mel([4, 5], Condition(SPEAKER))


def test_more_frames_than_noise_are_refused() -> None:
    frames = FLOW.noise_frames + 1
    with pytest.raises(UsageError, match=f"{frames} mel frames are more than the 3200"):
        flow_decoder().solve(
            one((1, FLOW.mels, frames)), one((1, FLOW.mels)), one((1, FLOW.mels, frames))
        )


@pytest.mark.parametrize(("final", "frames"), [(True, 10), (False, 4)])
def test_prompt_conditions_the_mel_and_is_cut_off(final: bool, frames: int) -> None:
    decoder = flow_decoder()
    prompt = np.arange(6 * FLOW.mels, dtype=np.float32).reshape(6, FLOW.mels)
    condition = Condition(SPEAKER, [1, 2, 3], prompt)
    mel = decoder.mel([11, 12, 13, 14, 15], condition, final=final)
    assert mel[0, 0].tolist() == [11, 11, 12, 12, 13, 13, 14, 14, 15, 15][:frames]
    assert mel.flags.c_contiguous
    (cond, *_) = fed(decoder.estimator, "cond")
    assert np.array_equal(cond[0, :, :6], prompt.T)
    assert not cond[:, :, 6:].any()
    assert not cond[1].any()
    assert fed(decoder.estimator, "spk")[0].tolist() == [[3, 4], [0, 0]]


def test_without_a_prompt_nothing_conditions_the_mel() -> None:
    decoder = flow_decoder()
    assert decoder.mel([11, 12], Condition(SPEAKER)).shape == (1, FLOW.mels, 4)
    assert not fed(decoder.estimator, "cond")[0].any()


@pytest.mark.parametrize("frames", [5, 7, 0])
def test_prompt_mel_has_to_fit_its_tokens(frames: int) -> None:
    condition = Condition(SPEAKER, [1, 2, 3], one((frames, FLOW.mels)))
    with pytest.raises(UsageError, match=f"prompt of {frames} mel frames for 3 tokens"):
        flow_decoder().mel([4, 5], condition)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_mel_that_is_not_finite_is_refused(bad: float) -> None:
    answer = {"velocity": one((2, FLOW.mels, 4))}
    decoder = flow_decoder(lambda feeds: answer | {"next": one(feeds["x"].shape, bad)})
    with pytest.raises(GateError, match="flow gave NaN or infinite mel values"):
        decoder.mel([4, 5], Condition(SPEAKER))


def test_checkpoint_decides_seed_and_grid_of_the_solver() -> None:
    settings = msgspec.structs.replace(FLOW, noise_seed=5, schedule="linear", steps=2)
    decoder = replace(flow_decoder(constant_velocity), settings=settings)
    decoder.mel([1], Condition(SPEAKER))
    start, _ = fed(decoder.estimator, "x")
    assert np.array_equal(start, standard_normal(5, (1, 4, 3200))[:, :, :2])
    step = np.array([0.5 * 1.7, -0.5 * 0.7], np.float32)
    assert all(np.array_equal(given, step) for given in fed(decoder.estimator, "step"))


@repeatable
@given(st.integers(1, 60), st.floats(0.25, 4.0))
def test_speed_stretches_by_linear_interpolation(frames: int, speed: float) -> None:
    mel = np.random.default_rng(frames).standard_normal((1, 3, frames), np.float32)
    found = change_speed(mel, speed)
    count = max(1, int(frames / speed))
    at = (np.arange(count) + 0.5) * (frames / count) - 0.5
    wanted = [np.interp(at, np.arange(frames), band) for band in mel[0]]
    assert found.dtype == np.float32
    assert found.shape == (1, 3, count)
    np.testing.assert_allclose(found[0], wanted, rtol=0, atol=1e-4)


def test_speed_one_changes_nothing() -> None:
    mel = np.arange(30, dtype=np.float32).reshape(1, 3, 10)
    assert np.array_equal(change_speed(mel, 1.0), mel)


def test_an_utterance_that_needs_more_memory_than_the_target_gives_is_refused_first() -> None:
    decoder = replace(flow_decoder(), memory=128 * 20**2)
    assert decoder.mel([1] * 10, Condition(SPEAKER)).shape[2] == 20
    with pytest.raises(ResourceError, match="an utterance of 22 mel frames needs about"):
        decoder.mel([1] * 11, Condition(SPEAKER))
    assert len(decoder.encoder.calls) == 1  # type: ignore[attr-defined]
