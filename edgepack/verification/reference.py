"""A bundle against recorded vectors of the original implementation.

A folder of vectors holds `lm.npz`, `flow.npz`, `hift.npz` and `tts.npz`; what their arrays mean is
in the modules of `vectors`, by family and file. Every array gets a row: an input was used, an
output was compared, an inner value was compared where the runtime can show it.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import cast

import msgspec
import numpy as np

from edgepack import discovery
from edgepack.bundle.bundle import Bundle
from edgepack.errors import EdgepackError, IntegrityError, UnsupportedError, UsageError
from edgepack.process import shortage
from edgepack.runtime.audio.enrol import Enroller
from edgepack.runtime.engines.session import EngineError, Feeds, Session
from edgepack.runtime.loading import Loaded, open_enroller, open_stage
from edgepack.runtime.trimmed import kept_rows
from edgepack.verification.selftest import relative_error

PACKAGE = "edgepack.verification.vectors"

# Limits, relative (see `relative_error`) unless they name a unit; docs/verification.md has why.
NETWORK = 1e-4
WAVEFORM = 2e-3  # a few frames of audio; the sine source amplifies rounding errors of f0
UTTERANCE = 1e-2  # audio of seconds; the original rounds phases of 1e5 rad to float32
DISTORTION_DB = 0.5  # audio of our own mel: its rounding errors are amplified by f0 and phase again

_MOST_LISTED = 16 << 20  # bytes of a list of sets
_HIDDEN = (
    "hidden inside the network; shown by .onnx files (with edgepack[build]), OpenVINO and LiteRT"
)


@dataclass(frozen=True)
class Row:
    """The result for one array of a file of vectors.

    `role` is input, output or inner. `error` and `limit` are of the comparison, if there was
    one; `note` says why there was none.
    """

    file: str
    array: str
    role: str
    error: float | None = None
    limit: float | None = None
    note: str = ""

    @property
    def failed(self) -> bool:
        """Whether a comparison went over its limit."""
        return self.error is not None and self.limit is not None and not self.error <= self.limit


@dataclass
class Vectors:
    """The arrays of one file, and their rows so far. An array that is read counts as an input."""

    file: str
    arrays: Mapping[str, np.ndarray]
    rows: dict[str, Row] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            raise UsageError(f"{self.file}: has no array {name!r}, which its others refer to")
        self.rows.setdefault(name, Row(self.file, name, "input"))
        return self.arrays[name]

    def ids(self, name: str) -> list[int]:
        """Token ids as a flat list."""
        return [int(i) for i in self[name].reshape(-1)]

    def unused(self, name: str, note: str) -> None:
        """Give an array that nothing depends on its row; `note` says why."""
        if name in self.arrays:
            self.rows[name] = Row(self.file, name, "input", note=note)

    def compare(
        self, name: str, actual: np.ndarray, limit: float = NETWORK, role: str = "output"
    ) -> None:
        """Compare an array, if the file has it, by relative error; a limit of 0 means exactly."""
        if name in self.arrays:
            error = relative_error(np.asarray(actual), self.arrays[name])
            self.judge(name, error, limit, role)

    def inner(self, name: str, actual: np.ndarray | None, limit: float = NETWORK) -> None:
        """Compare an inner value, or note that the runtime could not show it."""
        if name not in self.arrays:
            return
        if actual is None:
            self.rows[name] = Row(self.file, name, "inner", note=_HIDDEN)
        else:
            self.compare(name, actual, limit, "inner")

    def judge(self, name: str, error: float, limit: float, role: str = "output") -> None:
        """Record a comparison made elsewhere; the worst of several of one array is kept."""
        if name not in self.arrays:
            return
        known = self.rows.get(name)
        if known is None or known.error is None or not error <= known.error:
            self.rows[name] = Row(self.file, name, role, error, limit)

    def finished(self) -> list[Row]:
        """One row an array, in the file's order."""
        other = {n: Row(self.file, n, "input", note="unknown array") for n in self.arrays}
        return [self.rows.get(name, other[name]) for name in self.arrays]


@dataclass
class BundleUnderTest:
    """The bundle under test, loaded."""

    loaded: Loaded
    fixed: Mapping[int, int] = field(default_factory=dict)
    _tapped: dict[tuple[str, tuple[str, ...]], Session] = field(default_factory=dict)

    @cached_property
    def enroller(self) -> Enroller:
        """The bundle's enrolment networks."""
        return open_enroller(self.loaded.bundle, self.loaded.host)

    def text_ids(self, ids: list[int]) -> list[int]:
        """The bundle's text ids for the original's; raises UsageError for one that was trimmed."""
        known = {**self._numbers, **self.fixed}
        lost = [number for number in ids if number not in known] if self._numbers else []
        if lost:
            raise UsageError(
                f"{self.loaded.bundle.folder}: trimming dropped the text token {lost[0]}, which "
                "these vectors use; compare a bundle built with --language all"
            )
        return [known.get(number, number) for number in ids]

    @cached_property
    def _numbers(self) -> dict[int, int]:
        """The bundle's id for each original id; empty if the bundle was not trimmed."""
        return {old: new for new, old in enumerate(kept_rows(self.loaded.bundle))}

    def reveal(self, stage: str, feeds: Feeds, taps: Iterable[str]) -> dict[str, np.ndarray]:
        """Inner values of a network by name; none where the runtime cannot show them."""
        names = tuple(sorted(set(taps)))
        if not names:
            return {}
        try:
            session = self._tapped.get((stage, names))
            if session is None:
                session = open_stage(self.loaded.bundle, stage, self.loaded.host, names)
                self._tapped[stage, names] = session
        except (UnsupportedError, ModuleNotFoundError):
            return {}
        session.reset()
        outputs = session.run(feeds)
        return {name: outputs[name] for name in names}


Check = Callable[[Vectors, BundleUnderTest], None]


def family_of(folder: Path, bundle: Bundle) -> str:
    """The family that vectors are of: that of the bundle, or what a MANIFEST.json beside them says.

    Raises UsageError if they are of another family than the bundle, or of one without checkers.
    """
    own = bundle.manifest.family
    said = _said(folder)
    if said is not None and said != own:
        raise UsageError(f"{folder}: vectors of {said}; {bundle.folder} is of {own}")
    if own not in packages():
        raise UsageError(
            f"{folder}: no checkers for vectors of {own}; known: {', '.join(packages())}"
        )
    return own


def packages() -> list[str]:
    """The families whose vectors have checkers."""
    path = importlib.import_module(PACKAGE).__path__
    return sorted(module.name for module in pkgutil.iter_modules(path) if module.ispkg)


def _said(folder: Path) -> str | None:
    """The family of a set of vectors by the list of sets beside it; None if that says nothing."""
    beside = folder.resolve().parent / "MANIFEST.json"
    if not beside.is_file():
        return None
    try:
        sets = msgspec.json.decode(beside.read_bytes()[:_MOST_LISTED], type=_Sets).sets
    except (msgspec.DecodeError, RecursionError, OSError) as error:
        raise IntegrityError(f"{beside}: not a list of sets of vectors ({error})") from None
    return sets[folder.resolve().name].family if folder.resolve().name in sets else None


class _Set(msgspec.Struct):
    """A set of vectors, as MANIFEST.json lists it; the rest is passed over."""

    family: str | None = None


class _Sets(msgspec.Struct):
    """The list of sets."""

    sets: dict[str, _Set]


def files(folder: Path, family: str) -> list[str]:
    """The names of the files of vectors in `folder`; raises UsageError if there are none."""
    known = discovery.names(f"{PACKAGE}.{family}")
    found = [name for name in known if (folder / f"{name}.npz").is_file()]
    if not found:
        raise UsageError(f"{folder}: none of {', '.join(f'{n}.npz' for n in known)} is there")
    return found


def run(loaded: Loaded, folder: Path) -> list[Row]:
    """Compare a loaded bundle with every file of vectors in `folder`, one row an array."""
    subject = BundleUnderTest(loaded)
    rows: list[Row] = []
    family = family_of(folder, loaded.bundle)
    for name in files(folder, family):
        vectors = Vectors(name, _read(folder / f"{name}.npz"))
        check = cast(Check, discovery.load(f"{PACKAGE}.{family}", name, "check"))
        try:
            check(vectors, subject)
        except Exception as error:  # an engine's or numpy's, for an id or a shape it cannot take
            ours = isinstance(error, EdgepackError) and not isinstance(error, EngineError)
            if ours or shortage.of_memory(error):
                raise
            raise UsageError(
                f"{folder}: {name}.npz does not fit this bundle; is it of this checkpoint? "
                f"({type(error).__name__}: {error})"
            ) from error
        rows += vectors.finished()
    return rows


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile's, zlib's and numpy's errors share no base class
        raise IntegrityError(f"{path}: not a readable npz file ({error})") from None
