"""The output folder before a build: bundles that can be kept, and leftovers of killed builds."""

from collections.abc import Sequence

from edgepack.builder.planning import BuildRequest, Plan
from edgepack.bundle import bundle, measurements
from edgepack.bundle.bundle import Bundle
from edgepack.bundle.manifest import Manifest
from edgepack.errors import GateError, UnsupportedError, UsageError
from edgepack.files import atomic

HUB = "hub"  # the folder below the output that is there only during a build


def clear(request: BuildRequest, plans: Sequence[Plan]) -> None:
    """Remove leftovers of killed builds, also where nothing has to be built now."""
    atomic.clear(request.output / HUB)
    for wanted in plans:
        atomic.clear(wanted.folder)
        atomic.clear(measurements.place(wanted.folder))


def existing(wanted: Plan, *, force: bool) -> Bundle | None:
    """The bundle that is there already, if it is of the same inputs, intact, and passed its gates.

    A bundle that failed its gates was built by a request that allows it, which has another key.
    """
    if force or not wanted.folder.exists():
        return None
    try:
        found = bundle.open_bundle(wanted.folder)
    except UnsupportedError as error:
        raise UsageError(f"{error}: give --force to replace it, or another -o") from None
    manifest = found.manifest
    if manifest.build != wanted.key or not _as_chosen(wanted, manifest):
        if manifest.quality and manifest.quality.failed:
            raise GateError(
                f"{wanted.folder}: holds a bundle that failed its gates and was allowed to "
                f"({'; '.join(manifest.quality.failed)}); give --force to replace it"
            )
        raise UsageError(
            f"{wanted.folder}: holds a bundle of other inputs, options or tools; "
            "give --force to replace it, or another -o"
        )
    found.check(manifest.files)
    return found


def _as_chosen(wanted: Plan, manifest: Manifest) -> bool:
    """Whether a bundle has the recipes and solvers that a plan fixes, if it fixes any."""
    for name, stage in manifest.stages.items():
        for runtime, variant in stage.variants.items():
            if wanted.choices.name(runtime, name) not in (None, variant.recipe):
                return False
    tables = {runtime: solver.solver for runtime, solver in manifest.solvers.items()}
    return all(tables.get(runtime) == table for runtime, table in wanted.choices.solvers.items())
