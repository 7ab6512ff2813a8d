"""Speech that is handed out while it is made, in every runtime."""

import threading
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import Changed, noting
from support import RUNTIMES, Build

from edgepack.errors import GateError, UsageError
from edgepack.runtime.engines.session import Feeds
from edgepack.runtime.loading import session_of, with_session
from edgepack.runtime.strategies.schedule import growing_chunks
from edgepack.runtime.synthesizer import LoadOptions, Settings, Speech, Synthesizer

SENTENCES = "今天天气很好。我们一起去公园散步。"
TEN_SECONDS = "今天天气很好我们一起去公园散步吧然后回家吃饭晚上再看一场电影明天早上还要去上班"
ADVICE = "leave out"
AS_IT_IS = Settings()


@pytest.fixture(scope="module", params=RUNTIMES)
def subject(request: pytest.FixtureRequest, bundle: Build) -> Synthesizer:
    return Synthesizer.load(bundle("demo"), request.param, 2)


@pytest.fixture(scope="module")
def ort(bundle: Build) -> Synthesizer:
    return Synthesizer.load(bundle("demo"), "ort", 2)


def streamed(
    subject: Synthesizer, text: str | Iterator[str], settings: Settings = AS_IT_IS
) -> tuple[list[np.ndarray], Speech]:
    with subject.stream(text, settings) as stream:
        chunks = list(stream)
    return chunks, stream.speech


def largest_step(audio: np.ndarray) -> float:
    return float(np.abs(np.diff(audio)).max())


def test_a_stream_says_the_same_as_whole_utterances(subject: Synthesizer) -> None:
    whole = subject.speak(SENTENCES, Settings(seed=3))
    chunks, speech = streamed(subject, SENTENCES, Settings(seed=3))
    assert [u.decoded for u in speech.utterances] == [u.decoded for u in whole.utterances]
    assert len(np.concatenate(chunks)) == len(whole.audio)
    np.testing.assert_array_equal(np.concatenate(chunks), speech.audio)
    assert (speech.voice, speech.mode, speech.sample_rate) == (
        whole.voice, whole.mode, whole.sample_rate,
    )  # fmt: skip
    assert [u.mel.shape for u in speech.utterances] == [u.mel.shape for u in whole.utterances]
    assert set(speech.stages) == set(whole.stages) - {"flow_time"}  # which is embedded once
    assert speech.faults == []
    times, seconds = zip(*speech.arrivals, strict=True)
    assert list(seconds) == [len(chunk) / speech.sample_rate for chunk in chunks]
    assert list(times) == sorted(times)
    assert (times[0], whole.arrivals) == (speech.first_audio_seconds, ())


def test_chunks_join_without_a_step(subject: Synthesizer) -> None:
    whole = subject.speak(TEN_SECONDS)
    chunks, speech = streamed(subject, TEN_SECONDS)
    assert len(chunks) >= 4
    ends = np.cumsum([len(chunk) for chunk in chunks])[:-1]
    at_joints = [abs(float(speech.audio[end] - speech.audio[end - 1])) for end in ends]
    assert max(at_joints) <= largest_step(whole.audio)


@pytest.mark.slow
def test_sentences_join_without_a_step(ort: Synthesizer) -> None:
    text = f"{TEN_SECONDS}。" * 3
    whole = ort.speak(TEN_SECONDS)
    _, speech = streamed(ort, text)
    assert len(speech.utterances) == 2
    end = len(speech.utterances[0].audio)
    step = abs(float(speech.audio[end] - speech.audio[end - 1]))
    assert step <= largest_step(whole.audio) / 4


def test_the_same_seed_gives_the_same_stream(ort: Synthesizer) -> None:
    one, other = (streamed(ort, SENTENCES, Settings(seed=5))[1].audio for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_first_audio_comes_early(ort: Synthesizer) -> None:
    """Before 35 % of what whole synthesis of ten seconds takes; the best of two, in turns."""
    shares = []
    for _ in range(2):
        whole = ort.speak(TEN_SECONDS)
        assert whole.audio_seconds > 9
        _, speech = streamed(ort, TEN_SECONDS)
        assert speech.first_audio_seconds < speech.seconds
        shares.append(speech.first_audio_seconds / whole.seconds)
    assert min(shares) < 0.35


def test_tokens_are_decoded_ahead_in_another_thread(ort: Synthesizer) -> None:
    threads: dict[str, set[int]] = {}
    loaded = ort.loaded
    for stage in ("speech_lm", "flow_estimator", "hift"):
        loaded = with_session(loaded, stage, noting(stage, session_of(loaded, stage), threads))
    streamed(Synthesizer(loaded, ort.clock), TEN_SECONDS)
    assert threads["flow_estimator"] == threads["hift"] == {threading.get_ident()}
    assert len(threads["speech_lm"]) == 1
    assert threads["speech_lm"] != threads["hift"]


def test_a_closed_stream_stops_and_keeps_what_was_spoken(ort: Synthesizer) -> None:
    before = threading.active_count()
    with ort.stream(TEN_SECONDS) as stream:
        first = next(iter(stream))
    assert threading.active_count() == before
    (utterance,) = stream.speech.utterances
    np.testing.assert_array_equal(utterance.audio, first)
    assert utterance.faults == []
    assert list(stream) == []
    assert ort.speak("好的。").audio_seconds > 0.3  # the synthesizer can be used again


def test_text_may_arrive_in_pieces(ort: Synthesizer) -> None:
    taken: list[float] = []

    def pieces() -> Iterator[str]:
        for piece in ("今天天气", "很好,我们", "一起去公园。"):
            taken.append(time.perf_counter())
            yield piece

    chunks, speech = streamed(ort, pieces())
    (utterance,) = speech.utterances
    assert utterance.decoded.text == "今天天气很好,我们一起去公园。"
    assert len(taken) == 3
    assert chunks
    assert speech.audio_seconds > 1
    again = streamed(ort, iter(["今天天气", "很好,我们", "一起去公园。"]))[1]
    np.testing.assert_array_equal(again.audio, speech.audio)


def test_pieces_have_the_readings_of_the_lexicon(ort: Synthesizer) -> None:
    settings = Settings(strict=False, lexicon={"天气": "气候"})
    with ort.stream(iter(["今天天气", "很好。"]), settings) as stream:
        given = np.concatenate(list(stream))
    wanted = np.concatenate(streamed(ort, iter(["今天气候", "很好。"]))[0])
    np.testing.assert_array_equal(given, wanted)


def test_pieces_that_fail_end_the_stream(ort: Synthesizer) -> None:
    def pieces() -> Iterator[str]:
        yield "今天"
        raise UsageError("the connection broke")

    with pytest.raises(UsageError, match="connection broke"), ort.stream(pieces()) as stream:
        list(stream)


def endless(subject: Synthesizer, silent: bool = False) -> Synthesizer:
    """The subject with a language model that never ends, or a vocoder that gives NaN."""

    def broken(feeds: Feeds, outputs: dict[str, Any]) -> dict[str, Any]:
        return {**outputs, "audio": np.full_like(outputs["audio"], np.nan)}

    def never(feeds: Feeds, outputs: dict[str, Any]) -> dict[str, Any]:
        logits = outputs["logits"].copy()
        logits[:, subject.loaded.decoder.settings.speech_tokens :] = -1e9
        return {**outputs, "logits": logits}

    stage, change = ("hift", broken) if silent else ("speech_lm", never)
    changed = Changed(session_of(subject.loaded, stage), change)
    return Synthesizer(with_session(subject.loaded, stage, changed), subject.clock)


@pytest.mark.parametrize("text", ["好。", ["好", "。"]], ids=["whole", "pieces"])
def test_a_runaway_ends_and_is_told(ort: Synthesizer, text: str | Sequence[str]) -> None:
    given = text if isinstance(text, str) else iter(text)
    with pytest.raises(GateError, match="runaway"):
        streamed(endless(ort), given)
    given = text if isinstance(text, str) else iter(text)
    _, speech = streamed(endless(ort), given, Settings(strict=False))
    assert "runaway" in speech.faults[0]


def test_broken_audio_is_not_handed_out(ort: Synthesizer) -> None:
    with pytest.raises(GateError, match="NaN or infinite samples"):
        streamed(endless(ort, silent=True), SENTENCES)


def test_what_a_stream_cannot_do(ort: Synthesizer) -> None:
    with pytest.raises(UsageError, match=f"{ADVICE} --speed or --stream"):
        ort.stream(SENTENCES, Settings(speed=1.5))


def test_with_low_memory_one_group_of_networks_is_there_at_a_time(
    bundle: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgepack.runtime.engines import residency

    there: list[set[str]] = []
    run = residency.OnDemand.run_kept

    def watched(self: residency.OnDemand, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        outputs = run(self, feeds, keep)
        there.append({s.group for s in self.residency.sessions if s.loaded is not None})
        return outputs

    monkeypatch.setattr(residency.OnDemand, "run_kept", watched)
    low = Synthesizer.load(bundle("demo"), "ort", 2, options=LoadOptions(memory="low"))
    speech = low.speak(SENTENCES)
    assert all(len(groups) == 1 for groups in there)
    assert set.union(*there) == {
        "decoding",  # the language model and its tables
        "flow_encoder",
        "flow_time",
        "flow_estimator",
        "hift_source",
        "hift",
    }
    whole = Synthesizer.load(bundle("demo"), "ort", 2)
    np.testing.assert_array_equal(speech.audio, whole.speak(SENTENCES).audio)
    there.clear()
    for one, other in zip(streamed(low, SENTENCES)[0], streamed(whole, SENTENCES)[0], strict=True):
        # Finished chunks are kept in one and computed again in the other, which rounds otherwise.
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-3)
    assert all(len(groups) == 1 for groups in there)
    assert "decoding" in set.union(*there)
    with low.stream(SENTENCES) as left:  # while the decoder of the next sentence waits
        next(left)
    np.testing.assert_array_equal(low.speak(SENTENCES).audio, speech.audio)


def test_memory_is_all_or_low(bundle: Build) -> None:
    with pytest.raises(UsageError, match="unknown memory 'lo'"):
        Synthesizer.load(bundle("demo"), options=LoadOptions(memory="lo"))


def test_no_file_is_left_by_a_profile(
    bundle: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    subject = Synthesizer.load(bundle("demo"), "ort", 1, options=LoadOptions(profile=True))
    subject.speak("好的。")
    for stage in subject.loaded.bundle.manifest.stages:
        seconds = session_of(subject.loaded, stage).operators()
        assert seconds
        assert sum(seconds.values()) > 0
    assert list(tmp_path.iterdir()) == []


def test_until_the_first_audio_decoding_is_few_tokens_ahead(ort: Synthesizer) -> None:
    decoded: list[int] = []
    at_flow: list[int] = []

    def decoding(feeds: Feeds, outputs: dict[str, Any]) -> dict[str, Any]:
        decoded.append(1)
        return outputs

    def slow(feeds: Feeds, outputs: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.3)  # time to go ahead
        at_flow.append(len(decoded))
        return outputs

    loaded = ort.loaded
    for stage, change in (("speech_lm", decoding), ("flow_encoder", slow)):
        loaded = with_session(loaded, stage, Changed(session_of(loaded, stage), change))
    streamed(Synthesizer(loaded, ort.clock), TEN_SECONDS)
    schedule = ort.loaded.bundle.manifest.host.schedule
    assert isinstance(schedule, growing_chunks.Record)
    needed = schedule.first_hop + ort.loaded.flow.look_ahead
    assert needed <= at_flow[0] <= needed + 6
    assert at_flow[1] > needed + schedule.first_hop  # and then it is far ahead
