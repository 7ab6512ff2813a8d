"""Grammars of text normalization, which a bundle copies from the Python package with them."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from edgepack.errors import UnsupportedError

# By normaliser: the package whose grammars it runs. The others bring their rules themselves.
_PACKAGES: Mapping[str, str] = {"wfst": "wetext"}
_NAMES = ("tagger.fst", "verbalizer.fst")


def grammars(normalizer: str, locale: str) -> list[Path]:
    """The files a normaliser is opened with for a locale: tagger, then verbalizer, or none.

    The package is found but not imported, as it would load the grammars of every language.
    """
    if normalizer not in _PACKAGES:
        return []
    package = _PACKAGES[normalizer]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UnsupportedError(f"{package} is not installed; pip install 'edgepack[build]'")
    folder = Path(spec.submodule_search_locations[0]) / "fsts" / locale / "tn"
    files = [folder / name for name in _NAMES]
    if not all(file.is_file() for file in files):
        raise UnsupportedError(f"the installed {package} has no grammar of {locale!r}; update it")
    return files
