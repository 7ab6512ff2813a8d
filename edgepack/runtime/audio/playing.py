"""Sound on the default output, through PortAudio (the extra `play`)."""

from typing import Any

import numpy as np

from edgepack.errors import UnsupportedError


class Player:
    """An open output. `write` waits until its buffer has room."""

    def __init__(self, rate: int) -> None:
        """Open it, mono; raises UnsupportedError where there is no PortAudio or no output."""
        try:
            import sounddevice
        except OSError as error:
            raise UnsupportedError(
                f"--play: {error}; install it, on Debian and Ubuntu as libportaudio2"
            ) from None
        try:
            self._stream: Any = sounddevice.OutputStream(
                samplerate=rate, channels=1, dtype="float32"
            )
            self._stream.start()
        except sounddevice.PortAudioError as error:
            raise UnsupportedError(f"--play: no output that sounds ({error})") from None

    def write(self, samples: np.ndarray) -> None:
        """Play samples float32 [n]; raises UnsupportedError if the output went away."""
        import sounddevice

        try:
            self._stream.write(np.ascontiguousarray(samples[:, None], np.float32))
        except sounddevice.PortAudioError as error:
            raise UnsupportedError(f"--play: the output stopped ({error})") from None

    def __enter__(self) -> "Player":
        """The player itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Wait until all of it was played, or stop at once after an error or an interrupt."""
        if kind is None:
            self._stream.stop()
        else:
            self._stream.abort()
        self._stream.close()
