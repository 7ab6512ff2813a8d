"""Whether a bundle fits its device: bytes of files, and the peak memory of speaking with it."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from edgepack.bundle.manifest import Manifest
from edgepack.bundle.ranges import Precision
from edgepack.errors import GateError, ResourceError
from edgepack.profiles.target import TargetProfile, formats

_MEGA = 1_000_000
_SHARES: Mapping[Precision, float] = {"fp32": 1.0, "fp16": 0.5, "int8": 0.25, "int4": 0.125}


def runtime_bytes(manifest: Manifest, runtime: str) -> int:
    """Bytes of all files that a device with one runtime needs, without those of other runtimes."""
    return sum(manifest.files[name].bytes for name in _files(manifest, runtime))


def _files(manifest: Manifest, runtime: str) -> list[str]:
    """Files that a device with one runtime needs."""
    of_runtime: dict[str, set[str]] = {}
    for stage in manifest.stages.values():
        for name, variant in stage.variants.items():
            of_runtime.setdefault(name, set()).update(variant.files)
    others = {f for name, files in of_runtime.items() if name != runtime for f in files}
    others -= of_runtime.get(runtime, set())
    return [name for name in manifest.files if name not in others]


def require_disk(folder: Path, checkpoint: int, profiles: Iterable[TargetProfile]) -> None:
    """Raise ResourceError if a disk has not even the least that a build writes.

    `checkpoint` is its size in bytes: the fp32 networks take as much, and each runtime a share of
    it, by its precision.
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
    sizes = {runtime: runtime_bytes(manifest, runtime) for runtime in profile.runtimes}
    over, keeping = _parted(sizes, memory.bundle_mb if memory else None)
    if memory and over:
        words = " and ".join(f"for {r} are {size / _MEGA:.0f} MB" for r, size in over.items())
        raise GateError(
            f"{manifest.target}: files {words}, the device's budget is {memory.bundle_mb} MB; no "
            f"bundle was written. Try {keeping}a lower --precision, fewer languages, or a target "
            "without a budget"
        )
    largest = {r: max(manifest.files[f].bytes for f in _files(manifest, r)) for r in sizes}
    _, keeping = _parted(largest, packaging.part_mb if packaging else None)
    for name, file in manifest.files.items() if packaging else ():
        if packaging and file.bytes > packaging.part_mb * _MEGA:
            raise GateError(
                f"{manifest.target}: {name} is {file.bytes / _MEGA:.0f} MB, one file may have "
                f"{packaging.part_mb} MB; no bundle was written. Try {keeping}a lower --precision"
            )


def require_memory(target: str, profile: TargetProfile, peaks: Mapping[str, int]) -> None:
    """Raise GateError if the peak memory in a runtime, in bytes, is over the target's budget.

    Targets with a GPU are not judged, as its memory cannot be measured on this machine's CPU.
    """
    memory = profile.memory
    over, keeping = _parted(peaks, memory.peak_mb if memory and not profile.gpu else None)
    if memory and over:
        words = " and ".join(f"with {r} took {peak / _MEGA:.0f} MB" for r, peak in over.items())
        raise GateError(
            f"{target}: speaking {words} of memory on this machine, the device's budget is "
            f"{memory.peak_mb} MB; no bundle was written. Try {keeping}a lower --precision"
        )


def _parted(sizes: Mapping[str, int], budget_mb: int | None) -> tuple[dict[str, int], str]:
    """Runtimes that are over a budget with their bytes, and advice to take those that are not."""
    if budget_mb is None:
        return {}, ""
    over = {runtime: size for runtime, size in sizes.items() if size > budget_mb * _MEGA}
    keeping = [runtime for runtime in sizes if runtime not in over]
    fits = "fits" if len(keeping) == 1 else "fit"
    advice = f"{formats(keeping)}, as {' and '.join(keeping)} {fits}, or " if keeping else ""
    return over, advice
