"""The numpy reference of CosyVoice 1 gives what the original gave on two small networks."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pytest
from numpy_reference import flow, hift, regulated_flow, relative_lm
from support import DATA, GOLDEN

from edgepack.model.checkpoint.folder import open_checkpoint

NETWORK, PITCH, WAVEFORM = 1e-4, 1e-3, 2e-4  # absolute: of order one, in Hz, in ±1
FRAME, RATE, GROUPS = 256, 22050, 8
SPACING = [1, 3, 5]


class Heads(NamedTuple):
    text: int
    lm: int
    encoder: int
    estimator: int


HEADS = {"cosyvoice1-s1": Heads(4, 4, 4, 4), "cosyvoice1-s2": Heads(3, 6, 2, 2)}


@pytest.fixture(params=HEADS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def state(model: str, part: str) -> Mapping[str, np.ndarray]:
    return open_checkpoint(DATA / "checkpoints" / model).tensors(part)


def recorded(model: str, name: str) -> Mapping[str, np.ndarray]:
    return np.load(GOLDEN / model / f"{name}.npz")


def close(actual: np.ndarray, wanted: np.ndarray, tolerance: float = NETWORK) -> None:
    np.testing.assert_allclose(actual, wanted.astype(np.float64), rtol=0, atol=tolerance)


def test_text_encoder_and_speaker(model: str) -> None:
    tensors, v = state(model, "llm"), recorded(model, "lm")
    ids = [*v["prompt_text_ids"], *v["text_ids"]]
    embedded = tensors["text_embedding.weight"][ids]
    found = relative_lm.encode_text(tensors, embedded, heads=HEADS[model].text)
    close(found, v["text_encoded"][0])
    close(flow.speaker(tensors, v["embedding"]), v["spk"])


def test_language_model(model: str) -> None:
    tensors, v = state(model, "llm"), recorded(model, "lm")
    forced = tensors["speech_embedding.weight"][v["tf_tokens"]]
    rows, count = np.concatenate([v["lm_input"][0], forced]), v["lm_input"].shape[1]
    found = relative_lm.language_model(tensors, rows, heads=HEADS[model].lm)
    close(found.hidden[:count], v["prefill_hidden"][0])
    close(found.logits[count - 1], v["prefill_logits_last"][0])
    close(found.logits[count:], v["tf_logits"])
    cache = np.concatenate([found.keys, found.values], -1)
    close(cache[:, :, :count], v["prefill_att_cache"])


def test_encoder(model: str) -> None:
    v = recorded(model, "flow")
    tokens = [*v["flow_prompt_token"], *v["flow_token"]]
    x = regulated_flow.encode(state(model, "flow"), tokens, heads=HEADS[model].encoder)
    close(x, v["enc_proj"][0])


@pytest.mark.parametrize("call", ["est77", "est60"])
def test_estimator(model: str, call: str) -> None:
    v = recorded(model, "flow")
    inputs = (v[f"{call}_{name}"] for name in ("x", "mu", "t", "spks", "cond"))
    velocity = regulated_flow.estimate(
        state(model, "flow"), *inputs, heads=HEADS[model].estimator, groups=GROUPS
    )
    close(velocity, v[f"{call}_out"])


def test_pitch_source_and_audio(model: str) -> None:
    tensors, v = state(model, "hift"), recorded(model, "hift")
    close(hift.pitch(tensors, v["mel"]), v["f0"][0], PITCH)
    noise, phase = v["noise"][0].T, v["phase"][0, :, 0]
    waves = regulated_flow.sines(v["f0"][0], noise, phase, frame=FRAME, sample_rate=RATE)
    close(waves, v["sine_waves"][0], WAVEFORM)
    close(hift.source(tensors, waves), v["source"][0, 0], WAVEFORM)
    audio = hift.vocode(
        tensors,
        v["mel"],
        v["source"][0, 0],
        rates=[8, 8],
        fft=16,
        hop=4,
        dilations=[SPACING] * 3,
        source_dilations=[SPACING] * 2,
    )
    close(audio, v["wav"][0], 1e-5)
