"""Speech from Python, written to a file while it is made.

Usage: python examples/speak.py BUNDLE TEXT OUT.wav
"""

import sys
import wave
from pathlib import Path

import numpy as np

from edgepack import EdgepackError, Settings, Synthesizer


def main(bundle: str, text: str, wav: str) -> None:
    """Speak `text` with the first runtime of the bundle that is installed."""
    synthesizer = Synthesizer.load(Path(bundle))
    with wave.open(wav, "wb") as file:
        file.setparams((1, 2, synthesizer.sample_rate, 0, "NONE", ""))
        with synthesizer.stream(text, Settings(seed=1)) as stream:
            for chunk in stream:  # float32 [n] in ±1
                file.writeframes((chunk * 32767).astype(np.int16).tobytes())
    spoken = stream.speech
    print(f"{spoken.voice}: {spoken.audio_seconds:.2f} s, first {spoken.first_audio_seconds:.2f} s")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except EdgepackError as error:
        sys.exit(f"{error}")
