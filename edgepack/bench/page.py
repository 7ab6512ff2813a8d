"""Results as one self-contained HTML page: no script, no other file, no network."""

from collections.abc import Sequence
from importlib import resources

from edgepack import report
from edgepack.bench import plots, summary
from edgepack.bench.result import Result
from edgepack.energy.measurement import sentence
from edgepack.runtime.engines.installed import imported


def require() -> None:
    """Raise ModuleNotFoundError or UnsupportedError if a page could not be made."""
    for name in ("jinja2", "matplotlib.figure"):
        imported(name)


def render(results: Sequence[Result]) -> str:
    """The page; needs the `report` extra (jinja2 and matplotlib)."""
    import jinja2

    source = (resources.files("edgepack") / "bench" / "page.html.j2").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["size"] = report.size
    environment.filters["energy"] = sentence
    template = environment.from_string(source)
    drawn = [
        [
            (title, plot(result.subjects))
            for title, plot in (
                ("Work by stage", plots.real_time),
                ("First audio", plots.first_audio),
                ("Memory", plots.memory),
                ("Energy", plots.joules),
                ("By length", plots.lengths),
                ("Solvers of the flow decoder", plots.solvers),
            )
        ]
        for result in results
    ]
    return template.render(results=results, drawn=drawn, summary=summary)
