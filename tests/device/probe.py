"""What one machine makes of a bundle: `probe.py BUNDLE RUNTIME RESULT.npz [LIMIT]`.

Runs on the device (here: in the emulator) and on the build host with the same code. Writes greedy
speech tokens, the mel and audio of given tokens, the answers to the self-test, the samples of the
host loop, and what machine it was.
"""

import json
import platform
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

from host_loop import Host  # noqa: E402

from edgepack.bundle import voices  # noqa: E402
from edgepack.runtime.engines.session import engine  # noqa: E402
from edgepack.runtime.loading import Loaded, load, session_of  # noqa: E402
from edgepack.runtime.stages.sampling import greedy  # noqa: E402
from edgepack.verification import selftest, speaking  # noqa: E402

TEXT = "今天天气很好，我们一起去公园散步吧。"
LONGEST, SPOKEN = 40, 25  # tokens: of the greedy decoding, and of what is spoken
SEED = 5
# Without it ONNX Runtime on x86 lets 8-bit products saturate where there is no VNNI.
PRECISE = "session.x64quantprecision"


def greedy_tokens(loaded: Loaded, text: list[int]) -> list[int]:
    """The most probable tokens of a text, from an empty prompt."""
    tokens, _ = loaded.decoder.collect(loaded.decoder.generate(text, greedy, longest=LONGEST))
    return tokens


def precise_products() -> None:
    """Have every session of ONNX Runtime multiply integers exactly, as Arm does."""
    import onnxruntime

    plain = onnxruntime.SessionOptions

    class Precise(plain):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.add_session_config_entry(PRECISE, "1")

    onnxruntime.SessionOptions = Precise


def probe(bundle: Path, runtime: str) -> dict[str, np.ndarray]:
    """Everything that is compared, as arrays."""
    precise_products()
    loaded = load(bundle, runtime, 1)
    chosen, voice = voices.read(loaded.bundle, None)
    tokens = greedy_tokens(loaded, loaded.frontend.ids(TEXT))
    mel = loaded.flow.mel(tokens[:SPOKEN], speaking.condition(voice))
    found = {"greedy": np.array(tokens), "mel": mel, "audio": speaking.vocode(loaded, mel, 0)}
    calls = selftest.read(loaded.bundle)
    for stage, recorded in calls.items():
        outputs = selftest.execute(session_of(loaded, stage), [call.feeds for call in recorded])
        for name, value in outputs[0].items():
            found[f"stage/{stage}/{name}"] = value
    if (bundle / "host_loop.json").exists():
        host = Host(bundle, runtime, SEED, chosen)
        found["host"] = host.sound(host.mel(tokens[:SPOKEN]), np.zeros((1, 1, 0), np.float32))[0]
    machine = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "engine": f"{runtime} {engine(runtime).version()}",
    }
    return {**found, "machine": np.array(json.dumps(machine))}


if __name__ == "__main__":
    np.savez(sys.argv[3], **probe(Path(sys.argv[1]), sys.argv[2]))  # type: ignore[arg-type]
