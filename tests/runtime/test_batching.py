"""Several utterances in one call of the language model: equal samples in every company."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served import within
from support import RUNTIMES, Build

from edgepack.builder.backend import Job, backend
from edgepack.bundle.bundle import Bundle
from edgepack.errors import CancelledError, GateError, UnsupportedError, UsageError
from edgepack.graph.weights import Weights
from edgepack.model.networks.speech_lm import SpeechLMDims, speech_lm
from edgepack.profiles.recipe import named
from edgepack.profiles.target import RuntimeOptions
from edgepack.runtime.cancellation import Cancellation
from edgepack.runtime.engines.session import Options, Rows, engine
from edgepack.runtime.engines.watch import Clock
from edgepack.runtime.loading import load
from edgepack.runtime.stages.decode import Context, SpeechDecoder
from edgepack.runtime.stages.rows import BatchedUtterance, RowDecoder
from edgepack.runtime.stages.sampling import Sampler, greedy
from edgepack.runtime.synthesizer import LoadOptions, Settings, Synthesizer

TEXTS = (
    "今天天气很好。", "我们一起去公园散步吧。", "你好。", "明天早上还要去上班，路上的人很多。",
    "再见。", "我也是。", "他昨天晚上没有回家。", "火车九点开。",
)  # fmt: skip
LONG = "".join(TEXTS * 3)
PLAIN = Settings(seed=4, strict=False, steps=1)
STEPS = 140  # more than the slots that there are at first, and than those that come next
THREAD = "edgepack-rows"


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == THREAD]


@pytest.fixture(scope="module", params=["fp32", pytest.param("int8", marks=pytest.mark.slow)])
def folder(request: pytest.FixtureRequest, bundle: Build) -> Path:
    if request.param == "fp32":
        return bundle("demo")
    int8_demo: Bundle = request.getfixturevalue("int8_demo")
    return int8_demo.folder


@pytest.fixture(scope="module")
def decoder(folder: Path) -> SpeechDecoder:
    return load(folder, "ort", 2).decoder


class Company:
    """Rows of some of the texts, each fed with the likeliest token, and the bits of its logits."""

    def __init__(self, decoder: SpeechDecoder, ids: Sequence[Sequence[int]]) -> None:
        self.decoder, self.ids = decoder, ids
        rows = decoder.language_model.rows()
        assert rows is not None
        self.rows: Rows = rows
        self.members: list[int] = []
        self.last: dict[int, int] = {}
        self.bits: dict[int, list[bytes]] = {}

    def join(self, number: int) -> None:
        lm = self.decoder.language_model
        logits = lm.run({"embeddings": self.decoder.begin(self.ids[number], Context(), None)})
        self.rows.join(lm.caches())
        self.members.append(number)
        self.last[number], self.bits[number] = int(logits["logits"].argmax()), []

    def leave(self, number: int) -> None:
        place = self.members.index(number)
        self.rows.leave(place)
        self.members[place] = self.members[-1]
        self.members.pop()

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            last = [self.last[number] for number in self.members]
            embeddings = np.moveaxis(self.decoder.embed_speech(last), 1, 0)
            logits = self.rows.run({"embeddings": embeddings})["logits"]
            for number, row in zip(self.members, logits, strict=True):
                self.last[number] = int(row.argmax())
                self.bits[number].append(row.tobytes())


@pytest.fixture(scope="module")
def ids(folder: Path) -> list[list[int]]:
    frontend = load(folder, "ort", 2).frontend
    return [frontend.ids(text) for text in TEXTS]


@pytest.fixture(scope="module")
def alone(decoder: SpeechDecoder, ids: list[list[int]]) -> dict[int, list[bytes]]:
    """The bits of each text's logits with a row beside it that is empty."""
    found: dict[int, list[bytes]] = {}
    for number in range(len(TEXTS)):
        company = Company(decoder, ids)
        company.join(number)
        company.step(STEPS)
        found |= company.bits
    return found


@pytest.mark.parametrize("size", [2, 4, 6, 8])
def test_a_row_has_the_same_bits_in_every_even_company(
    decoder: SpeechDecoder, ids: list[list[int]], alone: dict[int, list[bytes]], size: int
) -> None:
    company = Company(decoder, ids)
    for number in reversed(range(size)):
        company.join(number)
    company.step(STEPS)
    assert company.bits == {number: alone[number] for number in range(size)}


def test_rows_that_join_and_leave_change_no_bit_of_others(
    decoder: SpeechDecoder, ids: list[list[int]], alone: dict[int, list[bytes]]
) -> None:
    company = Company(decoder, ids)
    for number in range(3):
        company.join(number)
        company.step(7)
    company.leave(0)
    for number in (3, 4, 5, 6):
        company.step(9)
        company.join(number)
    for number in (6, 2, 4):
        company.step(5)
        company.leave(number)
    company.step(3)
    company.join(7)
    company.step(60)
    for number, bits in company.bits.items():
        assert bits == alone[number][: len(bits)]
    assert len(company.bits) == len(TEXTS)
    assert 128 in map(len, company.bits.values())


def test_a_row_that_is_not_finite_harms_no_other_and_none_after_it(
    decoder: SpeechDecoder, ids: list[list[int]], alone: dict[int, list[bytes]]
) -> None:
    company = Company(decoder, ids)
    company.join(0)
    lm = decoder.language_model
    lm.run({"embeddings": decoder.begin(ids[1], Context(), None)})
    company.rows.join({name: np.full_like(of, np.nan) for name, of in lm.caches().items()})
    company.members.append(1)
    company.last[1], company.bits[1] = 0, []
    company.step(5)
    assert np.isnan(np.frombuffer(company.bits.pop(1)[-1], np.float32)).all()
    company.leave(1)
    company.join(2)
    company.step(5)
    assert company.bits == {0: alone[0][:10], 2: alone[2][:5]}


@cache
def synthesizer(folder: Path, batch: int | None) -> Synthesizer:
    return Synthesizer.load(folder, "ort", 2, LoadOptions(batch=batch))


def test_sentences_of_a_text_have_the_samples_of_every_size_of_batch(folder: Path) -> None:
    found = [synthesizer(folder, batch).speak(LONG, PLAIN) for batch in (None, 2, 4)]
    sentences = len(found[0].utterances)
    assert [speech.rows for speech in found] == [sentences, 2, min(sentences, 4)]
    assert sentences > 2
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].audio, other.audio)
    assert found[0].stages["speech_lm"] > 0


def test_callers_have_the_samples_that_they_have_alone(folder: Path) -> None:
    def spoken(speaking: Synthesizer, number: int) -> Any:
        settings = replace(PLAIN, seed=number)
        if number % 2:
            return speaking.speak(TEXTS[number], settings)
        with speaking.stream(TEXTS[number] * 3, settings) as stream:
            np.concatenate(list(stream))
        return stream.speech

    one = [spoken(synthesizer(folder, 2), number) for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda n: spoken(synthesizer(folder, 4), n), range(6)))
    for a, b in zip(one, together, strict=True):
        np.testing.assert_array_equal(a.audio, b.audio)
    assert max(speech.rows for speech in together) > 2
    within(5, lambda: not threads())


def test_only_request_and_load_options_decide_what_is_a_row(folder: Path) -> None:
    sentences, none = (synthesizer(folder, batch) for batch in (None, 0))
    assert none.speak(LONG, PLAIN).rows == 1
    alone = none.speak(TEXTS[0], PLAIN)
    with ThreadPoolExecutor(2) as pool:
        busy = pool.submit(sentences.speak, LONG, PLAIN)
        found = sentences.speak(TEXTS[0], PLAIN)
    assert busy.result().rows > 1
    assert found.rows == 1
    np.testing.assert_array_equal(found.audio, alone.audio)


def test_a_cancelled_caller_leaves_the_others_as_they_are(folder: Path) -> None:
    wanted = synthesizer(folder, 2).speak(TEXTS[3], PLAIN).audio
    speaking, cancel = synthesizer(folder, 4), Cancellation()
    with ThreadPoolExecutor(3) as pool:
        ended = [pool.submit(speaking.speak, LONG, PLAIN, cancel) for _ in range(2)]
        kept = pool.submit(speaking.speak, TEXTS[3], PLAIN)
        within(5, lambda: bool(threads()))
        cancel.cancel()
        for one in ended:
            with pytest.raises(CancelledError):
                one.result(10)
        np.testing.assert_array_equal(kept.result().audio, wanted)
    within(5, lambda: not threads())
    np.testing.assert_array_equal(speaking.speak(TEXTS[3], PLAIN).audio, wanted)


@pytest.fixture
def rows(decoder: SpeechDecoder) -> Iterator[RowDecoder]:
    own = replace(decoder, language_model=decoder.language_model.fork())
    yield RowDecoder(own, 2, Clock())
    within(5, lambda: not threads())


def test_a_fault_of_one_row_ends_that_row_alone(
    decoder: SpeechDecoder, ids: list[list[int]], rows: RowDecoder
) -> None:
    def failing(log_probabilities: np.ndarray, history: Sequence[int]) -> int:
        if len(history) == 3:
            raise GateError("planted")
        return greedy(log_probabilities, history)

    samplers: tuple[Sampler, ...] = (greedy, failing, greedy)
    choices = [decoder.choosing(ids[n], sampler, 12) for n, sampler in enumerate(samplers)]
    begun = [
        rows.begin(BatchedUtterance(ids[n], Context(), choice, None, Clock()))
        for n, choice in enumerate(choices)
    ]
    bad = begun[1].tokens()
    assert [next(bad) for _ in range(3)] == choices[1].history
    with pytest.raises(GateError, match="planted"):
        next(bad)
    assert [len(list(row.tokens())) for row in (begun[0], begun[2])] == [12, 12]
    assert begun[0].most == begun[2].most == 2


def test_a_row_that_nobody_wants_makes_room(
    decoder: SpeechDecoder, ids: list[list[int]], rows: RowDecoder
) -> None:
    left, waits = (
        [
            BatchedUtterance(
                ids[n], Context(), decoder.choosing(ids[n], greedy, most), None, Clock()
            )
            for n in of
        ]
        for of, most in (((0, 1), 10**6), ((2,), 5))
    )
    for row in (*left, *waits):
        rows.begin(row)
    assert all(next(row.tokens()) >= 0 for row in left)
    assert len(list(waits[0].tokens())) == 5


@pytest.mark.parametrize("runtime", [name for name in RUNTIMES if name != "ort"])
def test_other_engines_decode_one_by_one_and_say_so(int8_demo: Bundle, runtime: str) -> None:
    assert not load(int8_demo.folder, runtime, 2).batching.rows
    with pytest.raises(UnsupportedError, match=f"in {runtime} .* decodes one by one"):
        load(int8_demo.folder, runtime, 2, LoadOptions(batch=4))


@pytest.mark.parametrize(("recipe", "several"), [("nbits8", True), ("dynamic-u8", False)])
def test_a_recipe_whose_rows_depend_on_each_other_has_none(
    tmp_path: Path, recipe: str, several: bool
) -> None:
    dims = SpeechLMDims(64, 96, 1, 2, 1, 32, 1e6, 1e-6, 40)
    shapes = {
        "norm.weight": (64,), "layers.0.input_layernorm.weight": (64,),
        "layers.0.post_attention_layernorm.weight": (64,),
        "layers.0.self_attn.q_proj.weight": (64, 64), "layers.0.self_attn.q_proj.bias": (64,),
        "layers.0.self_attn.k_proj.weight": (32, 64), "layers.0.self_attn.k_proj.bias": (32,),
        "layers.0.self_attn.v_proj.weight": (32, 64), "layers.0.self_attn.v_proj.bias": (32,),
        "layers.0.self_attn.o_proj.weight": (64, 64), "layers.0.mlp.gate_proj.weight": (96, 64),
        "layers.0.mlp.up_proj.weight": (96, 64), "layers.0.mlp.down_proj.weight": (64, 96),
        "head.weight": (40, 64), "head.bias": (40,),
    }  # fmt: skip
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal(of, np.float32) / 8 for name, of in shapes.items()}
    w = Weights.of("random", weights)
    graph = speech_lm(w, w / "head", dims)
    (tmp_path / "out").mkdir()
    options = RuntimeOptions(container="onnx", batched=True)
    job = Job(
        "speech_lm", graph.save(tmp_path), tmp_path / "out", graph.states,
        named("ort", recipe), options,
    )  # fmt: skip
    session = engine("ort").open(backend("ort").convert(job)[0], graph.states, Options(1))
    assert (session.rows() is not None) == several


@pytest.mark.parametrize("batch", [-2, 3, 66])
def test_a_batch_is_an_even_number_of_rows(int8_demo: Bundle, batch: int) -> None:
    with pytest.raises(UsageError, match=f"a batch of {batch}: give an even number"):
        load(int8_demo.folder, "ort", 2, LoadOptions(batch=batch))


def test_low_memory_has_no_batch(int8_demo: Bundle) -> None:
    assert not load(int8_demo.folder, "ort", 2, LoadOptions(memory="low")).batching.rows
    with pytest.raises(UnsupportedError, match="with low memory utterances are decoded one by one"):
        load(int8_demo.folder, "ort", 2, LoadOptions(memory="low", batch=4))
