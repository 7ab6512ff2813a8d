"""The numpy reference gives what the original implementation gave on two small networks."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pytest
from numpy_reference import flow, hift, layers, lm
from support import DATA, GOLDEN, RECORDED

from edgepack.model.checkpoint.folder import open_checkpoint

NETWORK = 1e-4  # absolute, of values of order one
PITCH = 1e-3  # in Hz, of hundreds
WAVEFORM = 2e-4  # the original rounds the phase of its sines to float32
FRAME, RATE = 480, 24000
SPACING = [[1, 3, 5]] * 3


class Heads(NamedTuple):
    lm: int
    kv: int
    encoder: int
    estimator: int


HEADS = {"cosyvoice2-s1": Heads(4, 2, 4, 4), "cosyvoice2-s2": Heads(6, 3, 3, 2)}
CHUNKS = {"full": None, "stream": 25}


@pytest.fixture(params=RECORDED)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def state(model: str, part: str) -> Mapping[str, np.ndarray]:
    return open_checkpoint(DATA / "checkpoints" / model).tensors(part)


def recorded(model: str, name: str) -> Mapping[str, np.ndarray]:
    return np.load(GOLDEN / model / f"{name}.npz")


def close(actual: np.ndarray, wanted: np.ndarray, tolerance: float = NETWORK) -> None:
    np.testing.assert_allclose(actual, wanted.astype(np.float64), rtol=0, atol=tolerance)


def start_noise() -> np.ndarray:
    return np.load(GOLDEN / "common" / "noise.npz")["rand_noise_head"][None]


def test_language_model(model: str) -> None:
    tensors, v = state(model, "llm"), recorded(model, "lm")
    text = [*v["prompt_text_ids"], *v["text_ids"]]
    prefix = lm.prefix(tensors, text, v["prompt_speech_token"].tolist())
    close(prefix, v["lm_input"][0], 1e-7)
    forced = tensors["speech_embedding.weight"][v["tf_tokens"]]
    heads = HEADS[model]
    found = lm.speech_lm(
        tensors,
        np.concatenate([prefix, forced]),
        heads=heads.lm,
        kv_heads=heads.kv,
        rope_theta=1e6,
        eps=1e-6,
    )
    count = len(prefix)
    close(found.hidden[:count], v["prefill_hidden"][0])
    close(found.logits[count - 1], v["prefill_logits_last"][0])
    close(found.logits[count:], v["tf_logits"])
    close(found.keys[:, :, :count], v["prefill_k"])
    close(found.values[:, :, :count], v["prefill_v"])


def test_speaker(model: str) -> None:
    v = recorded(model, "flow")
    close(flow.speaker(state(model, "flow"), v["flow_embedding"]), v["flow_spk"])


@pytest.mark.parametrize("mode", CHUNKS)
@pytest.mark.parametrize("context", ["", "ctx_"])
def test_encoder(model: str, mode: str, context: str) -> None:
    v = recorded(model, "flow")
    hidden, mu = flow.encode(
        state(model, "flow"),
        [*v["flow_prompt_token"], *v["flow_token"]],
        heads=HEADS[model].encoder,
        look_ahead=3 if context else 0,
        chunk=CHUNKS[mode],
    )
    close(hidden, v[f"enc_{context}{mode}"][0])
    close(mu, v[f"mu_{context}{mode}"][0])


def test_position_table_and_chunk_mask(model: str) -> None:
    v = recorded(model, "flow")
    width = v["enc_full"].shape[2]
    close(flow.relative_positions(64, width), v["pos_emb_64"][0])
    assert np.array_equal(layers.chunk_mask(64, 25), v["chunk_mask_64_25"][0])


@pytest.mark.parametrize("mode", CHUNKS)
@pytest.mark.parametrize("call", ["est77", "est130"])
def test_estimator(model: str, call: str, mode: str) -> None:
    v = recorded(model, "flow")
    x, mu, t, spks, cond = (v[f"{call}_{name}"] for name in ("x", "mu", "t", "spks", "cond"))
    chunk = CHUNKS[mode] and 50
    heads = HEADS[model].estimator
    velocity = flow.estimate(state(model, "flow"), x, mu, t, spks, cond, heads=heads, chunk=chunk)
    close(velocity, v[f"{call}_out_{mode}"])


@pytest.mark.parametrize(("steps", "mode"), [(10, "full"), (5, "stream")])
def test_solver(model: str, steps: int, mode: str) -> None:
    v = recorded(model, "flow")
    found = flow.solve(
        state(model, "flow"),
        start_noise(),
        v["cfm_mu"],
        v["cfm_spks"],
        v["cfm_cond"],
        heads=HEADS[model].estimator,
        steps=steps,
        chunk=CHUNKS[mode] and 50,
    )
    close(found.times, v[f"cfm_t_n{steps}"], 1e-6)
    close(found.end, v[f"cfm_out_n{steps}_{mode}"])
    if mode == "full":
        close(np.concatenate(found.states), v[f"cfm_traj_n{steps}_full"])


def test_pitch_and_source(model: str) -> None:
    tensors, v = state(model, "hift"), recorded(model, "hift")
    close(hift.pitch(tensors, v["mel"]), v["f0"][0], PITCH)
    for noise, suffix in ((v["noise"][0], ""), (np.zeros_like(v["noise"][0]), "_zero_noise")):
        waves = hift.sines(v["f0"][0], noise, frame=FRAME, sample_rate=RATE)
        close(hift.source(tensors, waves), v[f"source{suffix}"][0, 0], WAVEFORM)
        if not suffix:
            close(waves, v["sine_waves"][0], WAVEFORM)


def test_vocoder(model: str) -> None:
    v = recorded(model, "hift")
    audio = hift.vocode(
        state(model, "hift"),
        v["mel"],
        v["source"][0, 0],
        rates=[8, 5, 3],
        fft=16,
        hop=4,
        dilations=SPACING,
        source_dilations=SPACING,
    )
    close(audio, v["wav_from_source"][0], 1e-5)


def test_stft(model: str) -> None:
    v = recorded(model, "hift")
    spectrum = hift.stft(v["source_zero_noise"][0, 0], 16, 4)[:, :64]
    close(spectrum.real, v["stft_real"][0])
    close(spectrum.imag, v["stft_imag"][0])
