"""Whether a bundle fits its device: bytes of files, and the peak memory of speaking with it."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from edgepack.errors import GateError, ResourceError
from edgepack.manifest import Manifest
from edgepack.ranges import Precision
from edgepack.target import TargetProfile

_MEGA = 1_000_000
_SHARES: Mapping[Precision, float] = {"fp32": 1.0, "fp16": 0.5, "int8": 0.25, "int4": 0.125}


def runtime_bytes(manifest: Manifest, runtime: str) -> int:
    """Bytes of what a device with one runtime needs: files of other runtimes are not counted."""
    of_runtime: dict[str, set[str]] = {}
    for stage in manifest.stages.values():
        for name, variant in stage.variants.items():
            of_runtime.setdefault(name, set()).update(variant.files)
    others = {f for name, files in of_runtime.items() if name != runtime for f in files}
    others -= of_runtime.get(runtime, set())
    return sum(file.bytes for name, file in manifest.files.items() if name not in others)


def require_disk(folder: Path, checkpoint: int, profiles: Iterable[TargetProfile]) -> None:
    """Raise ResourceError if a disk has not even the least that a build writes.

    `checkpoint` is in bytes: the fp32 networks take as much, every runtime its share of it.
    """
    shares = [_SHARES[p.precision["default"]] for p in profiles for _ in p.runtimes]
    needed = round(checkpoint * (1 + sum(shares)))
    free = shutil.disk_usage(next(p for p in (folder, *folder.absolute().parents) if p.exists()))
    if free.free < needed:
        raise ResourceError(
            f"{folder}: {free.free / _MEGA:.0f} MB are free on its disk, this build needs "
            f"{needed / _MEGA:.0f} MB or more; free some, or give another -o"
        )


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
