"""Several utterances at once, sentences decoded ahead, and prompts that are computed once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from fakes import failing, noting
from support import RUNTIMES

from edgepack.bundle.bundle import Bundle
from edgepack.runtime.loading import session_of, with_session
from edgepack.runtime.synthesizer import LoadOptions, Settings, Synthesizer
from edgepack.runtime.text.normalization import Normalization

TEXTS = ["今天天气很好。", "我们一起去公园散步吧。", "明天早上还要去上班。", "你好，世界。"]
LONG = "今天天气很好，我们一起去公园散步。" * 6
SPOKEN = "明天见。"
PLAIN = Settings(seed=4)


@pytest.fixture(scope="module", params=RUNTIMES)
def subject(request: pytest.FixtureRequest, int8_demo: Bundle) -> Synthesizer:
    return Synthesizer.load(int8_demo.folder, request.param, 2)


@pytest.fixture(scope="module")
def ort(int8_demo: Bundle) -> Synthesizer:
    return Synthesizer.load(int8_demo.folder, "ort", 2)


def test_utterances_at_once_have_the_samples_of_those_in_turn(subject: Synthesizer) -> None:
    alone = [subject.speak(text, PLAIN).audio for text in TEXTS]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda text: subject.speak(text, PLAIN).audio, TEXTS * 2))
    for one, other in zip(alone * 2, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_stream_and_an_utterance_at_once(subject: Synthesizer) -> None:
    alone = subject.speak(TEXTS[1], PLAIN).audio
    with subject.stream(TEXTS[0], PLAIN) as stream:
        whole = np.concatenate(list(stream))
    with subject.stream(TEXTS[0], PLAIN) as stream:
        first = next(iter(stream))
        np.testing.assert_array_equal(subject.speak(TEXTS[1], PLAIN).audio, alone)
        rest = list(stream)
    np.testing.assert_array_equal(np.concatenate([first, *rest]), whole)


def test_each_utterance_has_its_own_times(ort: Synthesizer) -> None:
    with ThreadPoolExecutor(2) as pool:
        spoken = list(pool.map(ort.speak, TEXTS))
    for speech in spoken:
        assert 0 < speech.stages["flow_estimator"] < speech.seconds


def test_one_text_is_read_while_another_is(ort: Synthesizer) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Normalization):
        def __call__(self, text: str, *how: object) -> str:
            if text.startswith("很长"):
                begun.set()
                assert go_on.wait(10)
            return text

    frontend = replace(ort.loaded.frontend, normalize=Slow({}))
    slow = replace(ort, loaded=replace(ort.loaded, frontend=frontend))
    with ThreadPoolExecutor(2) as pool:
        long = pool.submit(slow._read, "很长的话。", PLAIN)
        assert begun.wait(10)
        try:
            assert pool.submit(slow._read, SPOKEN, PLAIN).result(5).pieces == [SPOKEN]
        finally:
            go_on.set()
        assert long.result().pieces == ["很长的话。"]


def test_weights_are_loaded_once(int8_demo: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgepack.runtime import loading

    opened: list[str] = []
    real = loading.open_stage

    def counted(bundle: Bundle, name: str, *rest: object, **options: object) -> object:
        opened.append(name)
        return real(bundle, name, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loading, "open_stage", counted)
    synthesizer = Synthesizer.load(int8_demo.folder, "ort", 1)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(synthesizer.speak, TEXTS[:3]))
    assert sorted(opened) == sorted(int8_demo.manifest.stages)


def test_with_low_memory_utterances_take_turns(int8_demo: Bundle) -> None:
    low = Synthesizer.load(int8_demo.folder, "ort", 1, options=LoadOptions(memory="low"))
    wanted = [low.speak(text, PLAIN).audio for text in TEXTS[:2]]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda text: low.speak(text, PLAIN).audio, TEXTS[:2]))
    for one, other in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_failure_gives_the_networks_back(ort: Synthesizer) -> None:
    broken = Synthesizer(with_session(ort.loaded, "hift", failing()), ort.clock)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="planted"):
            broken.speak(TEXTS[0])
    assert len(broken._idle) == 1


def test_a_stream_that_nobody_listens_to_holds_nobody_up(subject: Synthesizer) -> None:
    found: list[np.ndarray] = []
    with subject.stream(LONG, PLAIN) as ignored:
        caller = threading.Thread(target=lambda: found.append(subject.speak(SPOKEN, PLAIN).audio))
        caller.daemon = True
        caller.start()
        caller.join(60)
        in_time = not caller.is_alive()
        ignored.close()
    assert in_time
    np.testing.assert_array_equal(found[0], subject.speak(SPOKEN, PLAIN).audio)


def test_sentences_decoded_ahead_say_the_same(subject: Synthesizer) -> None:
    one = subject.speak(LONG, replace(PLAIN, overlap=False))
    other = subject.speak(LONG, replace(PLAIN, overlap=True))
    assert len(one.utterances) > 1
    np.testing.assert_array_equal(one.audio, other.audio)
    assert [u.decoded for u in one.utterances] == [u.decoded for u in other.utterances]


@pytest.mark.parametrize("overlap", [True, False])
def test_the_next_sentence_is_decoded_by_another_thread(ort: Synthesizer, overlap: bool) -> None:
    threads: dict[str, set[int]] = {}
    loaded = ort.loaded
    for stage in ("speech_lm", "hift"):
        loaded = with_session(loaded, stage, noting(stage, session_of(loaded, stage), threads))
    Synthesizer(loaded, ort.clock).speak(LONG, replace(PLAIN, overlap=overlap))
    assert threads["hift"] == {threading.get_ident()}
    assert (threads["speech_lm"] == threads["hift"]) != overlap


def test_an_error_of_the_decoding_thread_reaches_the_caller(ort: Synthesizer) -> None:
    broken = Synthesizer(with_session(ort.loaded, "speech_lm", failing()), ort.clock)
    with pytest.raises(RuntimeError, match="planted"):
        broken.speak(LONG, replace(PLAIN, overlap=True))
    assert "edgepack-lm" not in {thread.name for thread in threading.enumerate()}
