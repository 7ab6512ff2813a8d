"""Networks of a few graphs in one runtime, without a bundle around them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgepack.builder.backend import Job, backend
from edgepack.bundle.manifest import State
from edgepack.graph.net import Graph
from edgepack.profiles.recipe import Recipe
from edgepack.profiles.target import RuntimeOptions
from edgepack.runtime.engines.session import Options, Session, engine

AS_IT_IS = Recipe("as in the checkpoint", "fp32", "none")


@dataclass(frozen=True)
class Converted:
    """One network in one runtime."""

    path: Path
    states: tuple[State, ...]

    def open(self, runtime: str) -> Session:
        """A session on one thread."""
        return engine(runtime).open(self.path, self.states, Options(1))


def convert(graphs: Iterable[Graph], folder: Path, runtime: str) -> dict[str, Converted]:
    """Networks in a runtime, at fp32, by the names of their graphs; their files are in `folder`."""
    hub, target = folder / "hub", folder / runtime
    for made in (hub, target):
        made.mkdir(parents=True)
    options = RuntimeOptions(container=backend(runtime).containers[0])
    found = {}
    for graph in graphs:
        states = tuple(State(input=s.input, output=s.output, shape=s.shape) for s in graph.states)
        job = Job(graph.name, graph.save(hub), target, states, AS_IT_IS, options)
        found[graph.name] = Converted(backend(runtime).convert(job)[0], states)
    return found
