"""Plots of benchmark results as SVG text, their colours left to the page's style sheet."""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

from edgepack.bench.result import Subject

_WIDTH, _BAR, _REST = 4.6, 0.42, 1.0  # inches; narrow, so that a phone shows letters full size
_INK, _LINE = "#0001f0", "#0001f1"  # stand for variables of the style sheet, as do _SERIES
_SERIES = [f"#0001{n:02x}" for n in range(8)]
_STANDS = re.compile(r"#0001(f0|f1|0[0-7])")
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "edgepack",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _LINE,
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "ytick.left": False,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}

DrawAxes = Callable[[Any], None]


def real_time(subjects: Sequence[Subject]) -> str:
    """Seconds of work for a second of audio, by stage; 1 is real time."""

    def draw(axes: Any) -> None:
        stages = [s for s in subjects[0].stages if any(x.stages[s] > 0.002 for x in subjects)]
        left = [0.0] * len(subjects)
        for number, stage in enumerate(stages):
            widths = [subject.stages[stage] for subject in subjects]
            colour = _SERIES[number % len(_SERIES)]
            axes.barh(_names(subjects), widths, left=left, color=colour, label=stage, height=0.6)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        if max(left) > 0.6:
            axes.axvline(1.0, color=_INK, linestyle="--", linewidth=1)
        axes.set_xlabel("seconds of work for a second of audio")
        _legend(axes, 3)

    return _svg(draw, len(subjects), legend=0.55)


def first_audio(subjects: Sequence[Subject]) -> str:
    """Median to 95th percentile of warm streams, and the first one of a process."""

    def draw(axes: Any) -> None:
        names = _names(subjects)
        low = [s.first_audio.p50 for s in subjects]
        high = [s.first_audio.p95 for s in subjects]
        axes.hlines(names, low, high, color=_SERIES[0], linewidth=6, alpha=0.45)
        axes.plot(low, names, "o", color=_SERIES[0], label="warm: median to P95")
        cold = [s.cold_first_audio_seconds for s in subjects]
        axes.plot(cold, names, "D", color=_SERIES[1], markersize=5, label="with loading")
        axes.set_xlim(left=0)
        axes.set_xlabel("seconds until the first audio")
        axes.margins(y=0.3)
        _legend(axes, 2)

    return _svg(draw, len(subjects), legend=0.35)


def memory(subjects: Sequence[Subject]) -> str:
    """Resident memory with everything loaded, and at its peak."""

    def draw(axes: Any) -> None:
        names = _names(subjects)
        peak = [s.memory.peak_bytes / 1e6 for s in subjects]
        loaded = [s.memory.loaded_bytes / 1e6 for s in subjects]
        axes.barh(names, peak, color=_SERIES[0], alpha=0.45, height=0.6, label="peak")
        axes.barh(names, loaded, color=_SERIES[0], height=0.6, label="loaded")
        axes.set_xlabel("MB resident")
        _legend(axes, 2)

    return _svg(draw, len(subjects), legend=0.35)


def lengths(subjects: Sequence[Subject]) -> str:
    """Real-time factor of every utterance, by its length."""

    def draw(axes: Any) -> None:
        for number, subject in enumerate(subjects):
            x = [s.audio_seconds for s in subject.spoken]
            y = [s.seconds / s.audio_seconds for s in subject.spoken]
            marker = "osD^vP*X"[number % 8]
            axes.plot(x, y, marker, color=_SERIES[number % 8], markersize=4, label=subject.name)
        axes.grid(visible=True, axis="y")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("seconds of audio")
        axes.set_ylabel("real-time factor")
        _legend(axes, 1)

    return _svg(draw, 5, legend=0.2 * len(subjects), bars=False)


def solvers(subjects: Sequence[Subject]) -> str:
    """Error over evaluations of what calibration fitted; empty if nothing was calibrated."""
    known = [s for s in subjects if s.solver.curve]
    if not known:
        return ""

    def draw(axes: Any) -> None:
        for number, subject in enumerate(known):
            used, colour = subject.solver, _SERIES[number % 8]
            counts = [p.evaluations for p in used.curve]
            errors = [p.decibel for p in used.curve]
            axes.plot(counts, errors, "-o", color=colour, markersize=4, label=subject.name)
            at = counts.index(used.evaluations)
            axes.plot(counts[at], errors[at], "o", color=colour, markersize=9, alpha=0.45)
            if used.original:
                end = used.original
                axes.plot(end.evaluations, end.decibel, "D", color=_INK, markersize=5)
        if known[0].solver.limit is not None:
            axes.axhline(known[0].solver.limit, color=_INK, linestyle="--", linewidth=1)
        axes.grid(visible=True, axis="y")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("evaluations of the estimator (◆ the original's solver)")
        axes.set_ylabel("error, dB")
        _legend(axes, 1)

    return _svg(draw, 5, legend=0.2 * len(known), bars=False)


def joules(subjects: Sequence[Subject]) -> str:
    """Energy for a second of audio; empty if nothing was measured."""
    known = [s for s in subjects if s.energy.get("available")]
    if not known:
        return ""

    def draw(axes: Any) -> None:
        values = [s.energy["gross_j_per_audio_s"] for s in known]
        axes.barh(_names(known), values, color=_SERIES[2], height=0.6)
        word = "estimated " if any(s.energy["estimate"] for s in known) else ""
        axes.set_xlabel(f"{word}joules for a second of audio, gross")

    return _svg(draw, len(known))


def _legend(axes: Any, columns: int) -> None:
    axes.figure.legend(loc="outside lower center", ncols=columns)


def _names(subjects: Sequence[Subject]) -> list[str]:
    return [subject.name.replace(" ", "\n") for subject in subjects]


def _svg(draw: DrawAxes, rows: int, legend: float = 0.0, *, bars: bool = True) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, rows * _BAR + _REST + legend), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        if bars:
            axes.invert_yaxis()  # the first on top
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" role="img">', text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return _STANDS.sub(r"var(--p\1)", text)
