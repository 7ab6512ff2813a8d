"""Quiet engines, for programs whose stderr is read by people; the library does not use this."""

from edgepack.bundle.bundle import Bundle
from edgepack.runtime.engines.session import engine


def hush(bundle: Bundle, runtime: str) -> None:
    """Quieten the engines that run a bundle in a runtime, before its networks are called."""
    files: dict[str, list[str]] = {}
    for stage in bundle.manifest.stages.values():
        if variant := stage.variants.get(runtime):
            files.setdefault(variant.engine or runtime, []).append(variant.files[0])
    for name, found in files.items():
        smallest = min(found, key=lambda file: bundle.manifest.files[file].bytes)
        bundle.check([smallest])
        engine(name).hush(bundle.path(smallest))
