"""What was asked for, compared with what a bundle has, before its networks are loaded."""

from edgepack import voices
from edgepack.bundle import Bundle
from edgepack.runtime import solver
from edgepack.runtime.speech import Settings, mode_of


def require(bundle: Bundle, runtime: str, settings: Settings) -> None:
    """Raise UsageError for a voice, mode or solver that is not there or does not go together."""
    name, chosen = voices.read(bundle, settings.voice)
    mode_of(name, chosen, settings)
    calibrated = runtime in bundle.manifest.solvers
    solver.require(settings.solver, settings.steps, calibrated, runtime, bundle.folder)
