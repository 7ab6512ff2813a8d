"""Streams whose finished chunks are computed once: the same mel as if all were computed again."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from fakes import Changed
from support import COSYVOICE3, RECORDED, Build

from edgepack.builder.pipeline import build
from edgepack.builder.planning import BuildRequest
from edgepack.bundle.bundle import open_bundle
from edgepack.errors import GateError, IntegrityError, UsageError
from edgepack.profiles import target
from edgepack.runtime.engines.session import Feeds
from edgepack.runtime.load_options import LoadOptions
from edgepack.runtime.loading import Host, load, open_continuing
from edgepack.runtime.stages.continuing import Beginnings, Finished, KeptEvaluation, Sizes
from edgepack.runtime.stages.flow import Condition, FlowDecoder
from edgepack.runtime.stages.hops import Hops, chunk_mels
from edgepack.runtime.synthesizer import Settings, Synthesizer
from edgepack.verification import selftest

MODELS = [RECORDED[0], COSYVOICE3[0]]
TOKENS = 190
HOPS = Hops(25, 100, 2)
TEXT = "今天天气很好我们一起去公园散步吧然后回家吃饭晚上再看一场电影"


@pytest.fixture(scope="module", params=MODELS)
def flow(request: pytest.FixtureRequest, bundle: Build) -> FlowDecoder:
    return load(bundle(request.param), "ort", 2).flow


def width(flow: FlowDecoder) -> int:
    """Numbers of a speaker embedding."""
    shapes = flow.encoder.shapes()
    assert shapes
    return shapes["speaker"][1] or 0


def condition(flow: FlowDecoder, prompt: int, seed: int = 0) -> Condition:
    rng = np.random.default_rng(seed)
    speaker = rng.standard_normal(width(flow)).astype(np.float32)
    if not prompt:
        return Condition(speaker)
    mel = rng.standard_normal((2 * prompt, 80)).astype(np.float32)
    return Condition(speaker, rng.integers(0, 200, prompt).tolist(), mel)


def tokens(count: int = TOKENS) -> list[int]:
    return np.random.default_rng(1).integers(0, 200, count).tolist()


def mels(flow: FlowDecoder, given: Condition, hops: Hops = HOPS, count: int = TOKENS) -> Any:
    return [mel for mel, _ in chunk_mels(hops, flow, tokens(count), given, None)]


def watched(flow: FlowDecoder) -> tuple[FlowDecoder, list[Feeds]]:
    """The same decoder, and what the network that goes on is given."""
    calls: list[Feeds] = []

    def note(feeds: Feeds, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        calls.append(feeds)
        return outputs

    assert flow.continuing
    return replace(flow, continuing=Changed(flow.continuing, note)), calls


def same(made: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    assert [mel.shape for mel in made] == [mel.shape for mel in wanted]
    for mel, other in zip(made, wanted, strict=True):
        np.testing.assert_allclose(mel, other, rtol=0, atol=2e-5 * np.abs(other).max())


@pytest.mark.parametrize("prompt", [0, 2, 13, 28, 60, 75])
def test_the_mel_is_that_of_computing_all_again(flow: FlowDecoder, prompt: int) -> None:
    given = condition(flow, prompt)
    again = replace(flow, continuing=None)
    same(mels(flow, given), mels(again, given))


@pytest.mark.parametrize("first", [4, 10, 30])
def test_hops_need_not_be_whole_chunks(flow: FlowDecoder, first: int) -> None:
    given, hops = condition(flow, 31), Hops(first, 60, 2)
    again = replace(flow, continuing=None)
    same(mels(flow, given, hops), mels(again, given, hops))


def test_each_finished_frame_is_computed_once(flow: FlowDecoder) -> None:
    seen, calls = watched(flow)
    mels(seen, condition(flow, 0))
    steps = len(flow.solver.steps)
    segments = [(c["past"].shape[1], c["x"].shape[2]) for c in calls]
    # 25, 50 and 100 tokens of two frames; the rest is the last chunk, with full attention.
    assert Counter(segments) == {(0, 50): steps, (50, 100): steps, (150, 200): steps}


def test_a_prompt_is_computed_once_for_all_streams_of_a_voice(flow: FlowDecoder) -> None:
    flow = replace(flow, beginnings=Beginnings())  # type: ignore[call-arg]
    seen, calls = watched(flow)
    given = condition(flow, 75)
    first = mels(seen, given)
    assert {c["past"].shape[1] for c in calls} >= {0, 100}  # 50 tokens no text can change
    calls.clear()
    second = mels(seen, given)
    assert 0 not in {c["past"].shape[1] for c in calls}
    for mel, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(mel, other)
    for other_voice in (condition(flow, 75, seed=5), replace(given, speaker=given.speaker + 1)):
        calls.clear()
        mels(seen, other_voice)
        assert 0 in {c["past"].shape[1] for c in calls}


def test_what_is_kept_has_a_limit(flow: FlowDecoder) -> None:
    assert flow.continuing
    states = Sizes.of(flow.continuing).states
    of_a_frame = states * 4 * flow.solver.evaluations
    given = condition(flow, 0)
    whole = mels(replace(flow, memory=None, continuing=None), given)
    seen, calls = watched(flow)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgepack.runtime.strategies.flow._chunked.MOST_BYTES", 120 * of_a_frame)
        same(mels(seen, given), whole)
    assert max(c["past"].shape[1] for c in calls) == 100


def test_frames_depend_on_what_is_kept(flow: FlowDecoder) -> None:
    def forgetful(feeds: Feeds, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {**outputs, "kept": np.zeros_like(outputs["kept"])}

    assert flow.continuing
    given = condition(flow, 0)
    made = mels(replace(flow, continuing=Changed(flow.continuing, forgetful)), given)
    wanted = mels(replace(flow, continuing=None), given)
    np.testing.assert_allclose(made[0], wanted[0], rtol=0, atol=1e-4)
    assert np.abs(made[1] - wanted[1]).max() > 1e-2


def test_a_network_that_does_not_go_on_is_refused(flow: FlowDecoder) -> None:
    with pytest.raises(IntegrityError, match="of another kind"):
        Sizes.of(flow.estimator)


@pytest.mark.parametrize("output", ["next", "velocity", "kept", "next_ends"])
@pytest.mark.parametrize("change", ["missing", "other shape", "integers"])
def test_outputs_of_another_kind_are_refused(flow: FlowDecoder, output: str, change: str) -> None:
    def other(feeds: Feeds, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        value = outputs.pop(output)
        changed = {"other shape": value[..., :-1], "integers": value.astype(np.int64)}
        return outputs if change == "missing" else {**outputs, output: changed[change]}

    assert flow.continuing
    bad = replace(flow, continuing=Changed(flow.continuing, other))
    with pytest.raises(IntegrityError, match=f"another kind: .*{output}"):
        mels(bad, condition(flow, 0))


def test_beginnings_are_forgotten_when_they_are_too_large() -> None:
    def finished(rows: int) -> Finished:
        return Finished([KeptEvaluation(np.zeros((1, rows, 4), np.float16), np.zeros(1))], rows)

    known = Beginnings(most=8 * 10)
    for name, rows in (("a", 4), ("b", 4)):
        known.keep(name, finished(rows))
    assert known.find("a")
    known.keep("c", finished(4))
    assert [bool(known.find(name)) for name in "abc"] == [True, False, True]


@pytest.mark.parametrize("model", MODELS)
def test_the_self_test_finds_another_network(model: str, bundle: Build) -> None:
    opened = open_bundle(bundle(model))
    stage = opened.manifest.stage_of("estimator")
    form = open_continuing(opened, stage, Host("ort", 1))
    calls = selftest.read(opened)[stage]
    assert form
    assert selftest.continued_error(form, calls) <= 1e-4

    def later(feeds: Feeds, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {**outputs, "next_ends": np.zeros_like(outputs["next_ends"])}

    assert selftest.continued_error(Changed(form, later), calls) > 1e-3


def test_both_forms_have_one_file_of_weights(bundle: Build) -> None:
    folder = bundle(MODELS[0]) / "ort"
    (form,) = folder.glob("*.continuing.onnx")
    weights = form.with_name(form.name.replace(".continuing", "") + ".data")
    assert not form.with_name(f"{form.name}.data").exists()
    assert form.stat().st_size < weights.stat().st_size / 4


def test_networks_elsewhere_compute_all_again(bundle: Build) -> None:
    folder = bundle("demo")
    assert load(folder, "openvino", 2).flow.continuing is None
    assert load(folder, "ort", 2, LoadOptions(memory="low")).flow.continuing is None
    assert load(folder, "ort", 2).flow.continuing is not None


def test_streams_of_several_threads_have_frames_of_their_own(bundle: Build) -> None:
    subject = Synthesizer.load(bundle("demo"), "ort", 2)

    def samples(seed: int) -> np.ndarray:
        return np.concatenate(list(subject.stream(TEXT, Settings(seed=seed))))

    alone = [samples(seed) for seed in (1, 2)]
    streams = [subject.stream(TEXT, Settings(seed=seed)) for seed in (1, 2)]
    parts: list[list[np.ndarray]] = [[], []]
    for number in (0, 1) * 20:
        chunk = next(iter(streams[number]), None)
        if chunk is not None:
            parts[number].append(chunk)
    for chunks, wanted in zip(parts, alone, strict=True):
        np.testing.assert_array_equal(np.concatenate(chunks), wanted)


def test_kept_frames_are_halves_beside_integer_weights(int8_demo: Any) -> None:
    loaded = load(int8_demo.folder, "ort", 2)
    flow = loaded.flow
    assert flow.continuing
    assert Sizes.of(flow.continuing).dtype == np.float16
    given = condition(flow, 0)
    made, wanted = mels(flow, given), mels(replace(flow, continuing=None), given)
    for mel, other in zip(made, wanted, strict=True):
        assert np.sqrt(np.mean((mel - other) ** 2)) < 0.05 * other.std()


@pytest.mark.parametrize("prompt", [0, 75])
def test_a_continued_end_is_near_the_whole_one_and_cheaper(flow: FlowDecoder, prompt: int) -> None:
    given = condition(flow, prompt)
    wanted = mels(flow, given)
    seen, calls = watched(flow)
    made = mels(seen, given, replace(HOPS, continued_end=True))
    same(made[:-1], wanted[:-1])
    assert made[-1].shape == wanted[-1].shape
    off = np.sqrt(np.mean((made[-1] - wanted[-1]) ** 2)) / wanted[-1].std()
    assert 0 < off < 0.5
    last = calls[-1]
    assert last["x"].shape[2] == made[-1].shape[2]
    assert last["chunk"][0] >= last["past"].shape[1] + last["x"].shape[2]  # no mask


def test_speech_of_one_chunk_is_whole_however_streams_end(flow: FlowDecoder) -> None:
    given = condition(flow, 13)
    (made,) = mels(flow, given, replace(HOPS, continued_end=True), count=20)
    np.testing.assert_array_equal(made, flow.mel(tokens(20), given))


def test_only_growing_chunks_can_be_continued_to_the_end(bundle: Build) -> None:
    schedule = open_bundle(bundle(MODELS[0])).manifest.host.schedule
    assert not schedule.continued_end
    continued = schedule.ending(continued=True)
    assert continued.continued_end
    assert continued.ending(continued=False) == schedule
    pieces = open_bundle(bundle("cosyvoice1-s1")).manifest.host.schedule
    assert pieces.ending(continued=False) == pieces
    with pytest.raises(UsageError, match="overlapping_chunks cannot go on"):
        pieces.ending(continued=True)


def test_the_end_that_was_not_asked_for_is_not_in_the_manifest(bundle: Build) -> None:
    manifest = bundle(MODELS[0]).joinpath("manifest.json").read_text("utf-8")
    schedule = json.loads(manifest)["host"]["schedule"]
    assert "last_chunk" not in schedule
    assert list(schedule) == ["kind", "first_hop", "max_hop", "growth", "mel_overlap"]


@pytest.mark.slow
def test_streams_that_end_otherwise_are_held_to_a_limit(tmp_path: Path) -> None:
    text = Path("targets/intel-cpu-stream.yaml").read_text("utf-8")
    for decibel, passes in ((1.0, True), (0.001, False)):
        profile = target.parse("stream", text.replace("decibel: 1.0", f"decibel: {decibel}"))
        fast = msgspec.structs.replace(profile, precision={"default": "fp32"})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("edgepack.builder.planning.target.load", lambda name, made=fast: made)
            request = BuildRequest("demo", ["intel-cpu-stream"], tmp_path / str(passes))
            if not passes:
                with pytest.raises(GateError, match="stream_lsd"):
                    build(request)
                continue
            built = build(request)[0].bundle
            assert built.manifest.quality
            assert built.manifest.quality.values["ort"]["stream_lsd"].value < 1.0
