"""The interface of back ends, which are modules in `backends`.

A back end and the runtime engine that runs its files have the same name.
"""

import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast

from edgepack import discovery
from edgepack.bundle.manifest import State
from edgepack.errors import UnsupportedError
from edgepack.profiles.recipe import Recipe
from edgepack.profiles.target import RuntimeOptions

PACKAGE = "edgepack.builder.backends"


@dataclass(frozen=True)
class Job:
    """One graph to convert.

    `model` is the fp32 hub's `.onnx` file, `folder` where the result goes; a back end may write
    only there. `samples` is a folder of recorded inputs, for recipes that are calibrated,
    `sentences` one for those that take whole sentences of a network that decodes. These are inputs
    of `hub`, if that is set: then `model` is another form of it, over the same weights.
    """

    stage: str
    model: Path
    folder: Path
    states: tuple[State, ...]
    recipe: Recipe
    options: RuntimeOptions
    samples: Path | None = None
    sentences: Path | None = None
    hub: Path | None = None

    @property
    def recorded(self) -> Path:
        """The graph whose inputs were recorded."""
        return self.hub or self.model


class Backend(Protocol):
    """A module of `backends`: `BACKEND = ...`."""

    @property
    def containers(self) -> Sequence[str]:
        """The `container` values it understands."""
        ...

    @property
    def caches(self) -> str:
        """Where its files keep caches: `grown` inputs and outputs, `slots`, or `inside`."""
        ...

    def convert(self, job: Job) -> list[Path]:
        """Write the files of one graph; the first is the one to open.

        Raises UnsupportedError with the operator or limit that stands in the way, and if a
        recipe that quantizes found nothing to quantize.
        """
        ...

    def continuing(self, job: Job, model: Path) -> list[Path]:
        """The form of a converted graph that goes on from earlier frames, over its weights.

        `model` is the first of the files that `convert` wrote of the same job. There are none if
        the graph has no such form, or this back end or the target does not want it.
        """
        ...

    def complete(self, folder: Path) -> None:
        """Write what belongs to all networks of a bundle together beside them, if anything."""
        ...


@contextmanager
def quietly(level: int) -> Iterator[None]:
    """Suppress what tools print, and what they log up to a level, in the block."""
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def require_quantized(job: Job, count: int) -> None:
    """Raise UnsupportedError if a quantizing recipe left no operator with integer weights."""
    if count == 0:
        raise UnsupportedError(
            f"{job.stage}: recipe {job.recipe.method!r} quantized no operator of it"
        )


def require_half(job: Job, count: int) -> None:
    """Raise UnsupportedError if a recipe for float16 left every node in float32."""
    if count == 0:
        raise UnsupportedError(f"{job.stage}: recipe {job.recipe.method!r} left all of it in fp32")


def backend(name: str) -> Backend:
    """The back end called `name`."""
    return cast(Backend, discovery.load(PACKAGE, name, "BACKEND"))


def converted(job: Job, recipe: Recipe) -> list[Path]:
    """The files of a job by another recipe, which may be of another runtime than the job's."""
    found = backend(recipe.engine)
    return found.convert(_by(job, recipe, found))


def continuing(job: Job, recipe: Recipe, model: Path) -> list[Path]:
    """The form of a job that goes on from earlier frames, by the recipe that `model` is by."""
    found = backend(recipe.engine)
    return found.continuing(_by(job, recipe, found), model)


def _by(job: Job, recipe: Recipe, found: Backend) -> Job:
    delegated = recipe.engine != job.recipe.engine
    options = RuntimeOptions(container=found.containers[0]) if delegated else job.options
    return replace(job, recipe=recipe, options=options)
