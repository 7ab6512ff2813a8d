"""edgepack: CosyVoice speech synthesis packaged for phones, boxes and CPUs.

What a program needs is here, imported when it is first used: speaking takes `open_bundle`,
`Synthesizer` and `Settings`, building takes `build` and `BuildRequest`. Every other module may
change without notice. What needs a package that is not installed raises ModuleNotFoundError; the
extras are in README.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgepack.process import telemetry

if TYPE_CHECKING:
    from edgepack.builder.pipeline import Built, build
    from edgepack.builder.planning import BuildRequest, VoiceRequest
    from edgepack.bundle.bundle import Bundle, open_bundle
    from edgepack.errors import CancelledError, EdgepackError
    from edgepack.runtime.cancellation import Cancellation
    from edgepack.runtime.load_options import LoadOptions
    from edgepack.runtime.speech import Settings, Speech
    from edgepack.runtime.streaming import SpeechStream
    from edgepack.runtime.synthesizer import Synthesizer

__version__ = "0.1.0"

__all__ = [
    "BuildRequest",
    "Built",
    "Bundle",
    "Cancellation",
    "CancelledError",
    "EdgepackError",
    "LoadOptions",
    "Settings",
    "Speech",
    "SpeechStream",
    "Synthesizer",
    "VoiceRequest",
    "__version__",
    "build",
    "open_bundle",
]

# The module of each name: those of the imports above, which only type checkers see.
_MODULES = {
    "BuildRequest": "builder.planning",
    "Built": "builder.pipeline",
    "Bundle": "bundle.bundle",
    "Cancellation": "runtime.cancellation",
    "CancelledError": "errors",
    "EdgepackError": "errors",
    "LoadOptions": "runtime.load_options",
    "Settings": "runtime.speech",
    "Speech": "runtime.speech",
    "SpeechStream": "runtime.streaming",
    "Synthesizer": "runtime.synthesizer",
    "VoiceRequest": "builder.planning",
    "build": "builder.pipeline",
    "open_bundle": "bundle.bundle",
}

# Here, as every command, program and child process comes by before it has an engine.
telemetry.switch_off()


if not TYPE_CHECKING:  # a type checker that sees it takes every name for a public one

    def __getattr__(name: str) -> Any:
        """Import a public name at its first use; after that it is an attribute like any other."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """The public names, imported or not, beside the modules that are."""
    return sorted({*globals(), *__all__})
