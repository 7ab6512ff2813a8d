"""Recipes and solvers that the user fixes, by a bundle that exists or by a file."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edgepack.bundle.bundle import MANIFEST, open_bundle
from edgepack.bundle.consistency import solver_problems
from edgepack.bundle.manifest import Accuracy, Manifest, Solver
from edgepack.errors import UsageError
from edgepack.files.documents import read_bytes, read_yaml

_MAX_SOLVER_BYTES = 1 << 20


@dataclass(frozen=True)
class Choices:
    """Recipe names by runtime and stage (`default` for every other stage).

    `solvers` are tables by runtime; None is the checkpoint's own solver. Of a bundle there are also
    `reasons` by runtime and stage, the `curves` its solvers were chosen from by runtime, and
    `build`, the key of its inputs.
    """

    names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    solvers: Mapping[str, Solver | None] = field(default_factory=dict)
    reasons: Mapping[tuple[str, str], str] = field(default_factory=dict)
    curves: Mapping[str, Sequence[Accuracy]] = field(default_factory=dict)
    build: str = ""

    def identity(self) -> dict[str, object]:
        """What is fixed, for the key of a build; empty if nothing is."""
        solvers = {runtime: msgspec.to_builtins(table) for runtime, table in self.solvers.items()}
        names = {runtime: dict(of_runtime) for runtime, of_runtime in self.names.items()}
        return {"names": names, "solvers": solvers} if names or solvers else {}

    def name(self, runtime: str, stage: str) -> str | None:
        """The fixed recipe of a stage, if there is one."""
        of_runtime = self.names.get(runtime, {})
        return of_runtime.get(stage, of_runtime.get("default"))


def read_choices(path: Path) -> Choices:
    """Choices of a bundle folder, or of a YAML file such as `ort: {speech_lm: nbits8}`.

    Raises UsageError for anything else.
    """
    if path.is_dir() or path.name == MANIFEST:
        manifest = _manifest(path)
        names: dict[str, dict[str, str]] = {}
        reasons = {}
        for stage, record in manifest.stages.items():
            for runtime, variant in record.variants.items():
                names.setdefault(runtime, {})[stage] = variant.recipe
                reasons[runtime, stage] = variant.reason
        tables = {runtime: _table(manifest, runtime) for runtime in names}
        curves = {runtime: solver.curve for runtime, solver in manifest.solvers.items()}
        return Choices(names, tables, reasons, curves, manifest.build)
    tree = read_yaml(path)
    try:
        return Choices(msgspec.convert(tree, dict[str, dict[str, str]]))
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{path}: not a recipe file such as 'ort: {{speech_lm: nbits8}}' ({error})"
        ) from None


def read_solvers(path: Path, runtimes: Iterable[str]) -> dict[str, Solver | None]:
    """Tables of a bundle folder, or one for every runtime of a JSON file `{"steps": [...]}`.

    Raises UsageError for anything else.
    """
    if path.is_dir() or path.name == MANIFEST:
        manifest = _manifest(path)
        return {runtime: _table(manifest, runtime) for runtime in runtimes}
    try:
        table = msgspec.json.decode(read_bytes(path, _MAX_SOLVER_BYTES), type=Solver)
    except (UsageError, ValueError, RecursionError) as error:  # msgspec's, and no UTF-8
        raise UsageError(
            f"solver {str(path)!r}: not auto, reference, calibrated, a bundle or a JSON file with "
            f"steps ({error})"
        ) from None
    for problem in solver_problems(table):
        raise UsageError(f"{path}: {problem}")
    return dict.fromkeys(runtimes, table)


def _manifest(path: Path) -> Manifest:
    return open_bundle(path if path.is_dir() else path.parent).manifest


def _table(manifest: Manifest, runtime: str) -> Solver | None:
    found = manifest.solvers.get(runtime)
    return found.solver if found else None
