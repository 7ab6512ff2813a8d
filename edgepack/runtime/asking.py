"""Checks of a user's settings against a bundle, before its networks are loaded."""

from edgepack.bundle import voices
from edgepack.bundle.bundle import Bundle
from edgepack.runtime.speech import Settings, mode_of
from edgepack.runtime.stages import solver


def require(bundle: Bundle, runtime: str, settings: Settings) -> None:
    """Raise UsageError for a voice, mode or solver that the bundle lacks, or that do not match."""
    name, chosen = voices.read(bundle, settings.voice)
    mode_of(name, chosen, settings)
    calibrated = runtime in bundle.manifest.solvers
    solver.require(settings.solver, settings.steps, calibrated, runtime, bundle.folder)
