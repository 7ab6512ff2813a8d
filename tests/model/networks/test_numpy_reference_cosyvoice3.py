"""The numpy reference of CosyVoice3 gives what the original gave on two small networks."""

from collections.abc import Mapping

import numpy as np
import pytest
from numpy_reference import causal_hift, dit
from numpy_reference.hift import source
from support import DATA, GOLDEN

from edgepack.model.checkpoint.folder import open_checkpoint

NETWORK, PITCH, WAVEFORM = 1e-4, 1e-3, 1e-3
HEADS = {"cosyvoice3-s1": 4, "cosyvoice3-s2": 2}
CHUNKS = {"full": None, "stream": 50}
SPACING = [[1, 3, 5]] * 3
ENDINGS = [pytest.param("final", id="ends"), pytest.param("partial", id="goes-on")]


@pytest.fixture(params=HEADS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def state(model: str, part: str) -> Mapping[str, np.ndarray]:
    return open_checkpoint(DATA / "checkpoints" / model).tensors(part)


def recorded(model: str, name: str) -> Mapping[str, np.ndarray]:
    return np.load(GOLDEN / model / f"{name}.npz")


def close(actual: np.ndarray, wanted: np.ndarray, tolerance: float = NETWORK) -> None:
    np.testing.assert_allclose(actual, wanted.astype(np.float64), rtol=0, atol=tolerance)


@pytest.mark.parametrize(("name", "look_ahead"), [("mu_full", 0), ("mu_ctx_full", 3)])
def test_look_ahead(model: str, name: str, look_ahead: int) -> None:
    v = recorded(model, "flow")
    tokens = [*v["flow_prompt_token"], *v["flow_token"]]
    close(dit.condition(state(model, "flow"), tokens, look_ahead=look_ahead, ratio=2), v[name][0])


@pytest.mark.parametrize("mode", CHUNKS)
@pytest.mark.parametrize("call", ["est77", "est130"])
def test_estimator(model: str, call: str, mode: str) -> None:
    v = recorded(model, "flow")
    given = (v[f"{call}_{name}"] for name in ("x", "mu", "t", "spks", "cond"))
    found = dit.estimate(state(model, "flow"), *given, heads=HEADS[model], chunk=CHUNKS[mode])
    close(found, v[f"{call}_out_{mode}"])


@pytest.mark.parametrize("ending", ENDINGS)
def test_pitch_and_source(model: str, ending: str) -> None:
    tensors, v = state(model, "hift"), recorded(model, "hift")
    f0 = causal_hift.pitch(tensors, v["mel"], final=ending == "final")
    close(f0, v[f"f0_{ending}"][0], PITCH)
    noise = v["sine_noise"][0, : 480 * len(f0)]
    waves = causal_hift.sines(v[f"f0_{ending}"][0], noise, frame=480, sample_rate=24000)
    close(waves, v[f"{ending}_tap.m_source.l_sin_gen"][0], WAVEFORM)
    close(source(tensors, waves), v[f"source_{ending}"][0, 0], WAVEFORM)


@pytest.mark.parametrize("ending", ENDINGS)
def test_vocoder(model: str, ending: str) -> None:
    v = recorded(model, "hift")
    frames = v[f"source_{ending}"].shape[2] // 480
    audio = causal_hift.vocode(
        state(model, "hift"),
        v["mel"][:, :, :frames],
        v[f"source_{ending}"][0, 0],
        final=ending == "final",
        rates=[8, 5, 3],
        fft=16,
        hop=4,
        dilations=SPACING,
        source_dilations=SPACING,
    )
    close(audio, v[f"wav_from_source_{ending}"][0])
