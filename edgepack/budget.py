"""Whether a bundle fits its device: bytes of files, and the peak memory of speaking with it."""

from collections.abc import Mapping

from edgepack.errors import GateError
from edgepack.manifest import Manifest
from edgepack.target import TargetProfile

_MEGA = 1_000_000


def runtime_bytes(manifest: Manifest, runtime: str) -> int:
    """Bytes of what a device with one runtime needs: files of other runtimes are not counted."""
    of_runtime: dict[str, set[str]] = {}
    for stage in manifest.stages.values():
        for name, variant in stage.variants.items():
            of_runtime.setdefault(name, set()).update(variant.files)
    others = {f for name, files in of_runtime.items() if name != runtime for f in files}
    others -= of_runtime.get(runtime, set())
    return sum(file.bytes for name, file in manifest.files.items() if name not in others)


def require_size(manifest: Manifest, profile: TargetProfile) -> None:
    """Raise GateError if files are over the target's budget, or one is over its largest part."""
    memory, packaging = profile.memory, profile.packaging
    for runtime in profile.runtimes if memory else ():
        size = runtime_bytes(manifest, runtime)
        if memory and size > memory.bundle_mb * _MEGA:
            raise GateError(
                f"{manifest.target}: files for {runtime} are {size / _MEGA:.0f} MB, the device's "
                f"budget is {memory.bundle_mb} MB; no bundle was written. Try a lower --precision, "
                "fewer languages, or a target without a budget"
            )
    for name, file in manifest.files.items() if packaging else ():
        if packaging and file.bytes > packaging.part_mb * _MEGA:
            raise GateError(
                f"{manifest.target}: {name} is {file.bytes / _MEGA:.0f} MB, one file may have "
                f"{packaging.part_mb} MB; no bundle was written. Try a lower --precision"
            )


def require_memory(target: str, profile: TargetProfile, peaks: Mapping[str, int]) -> None:
    """Raise GateError if the peak memory in a runtime, in bytes, is over the target's budget.

    What a GPU would take this machine's CPU cannot tell, so those targets are not judged.
    """
    for runtime, peak in peaks.items() if profile.memory and not profile.gpu else ():
        if profile.memory and peak > profile.memory.peak_mb * _MEGA:
            raise GateError(
                f"{target}: speaking with {runtime} took {peak / _MEGA:.0f} MB of memory on this "
                f"machine, the device's budget is {profile.memory.peak_mb} MB; no bundle was "
                "written. Try a lower --precision or another --format"
            )
