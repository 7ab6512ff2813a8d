"""The page of results: what it says, and that a browser shows its plots."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from edgepack.bench import page
from edgepack.bench.result import (
    SCHEMA,
    AtOnce,
    Environment,
    Failure,
    MemoryUse,
    Percentiles,
    Point,
    Result,
    SolverUsed,
    StageMemory,
    Subject,
    UtteranceTiming,
)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
STAGES = {"speech_lm": 0.2, "flow_encoder": 0.02, "flow_estimator": 0.5, "hift": 0.1}


def subject(name: str, scale: float, *, metered: bool = False) -> Subject:
    energy = {
        "available": True, "estimate": False, "source": "rapl", "scope": "package",
        "quality": "measured", "window_s": 3.0, "updates_in_window": 60, "net_j_per_utterance": 1.0,
        "gross_j_per_utterance": 8.0, "gross_j_per_audio_s": 2.5 * scale, "net_j": 3.0,
        "net_j_per_audio_s": 0.5, "gross_wh_per_audio_min": 2.5 * scale / 60,
        "net_wh_per_audio_min": 0.5 / 60, "method": "rapl", "baseline_w": 4.0, "reasons": {},
    }  # fmt: skip
    spoken = [
        UtteranceTiming(
            text="a", audio_seconds=s, seconds=s * 0.8 * scale, stages={}, speech_tokens=9
        )
        for s in (2.0, 4.0, 8.0)
    ]
    return Subject(
        name=name, bundle="bundles/x", target="intel-cpu", architecture="x86_64", language="zh",
        runtime="ort", runtime_version="1.32.0", recipes=dict.fromkeys(STAGES, "nbits8"),
        bytes=580_000_000,
        threads=2, providers={"speech_lm": "cpu"}, pinned=True, masks={"0-1": 5}, load_seconds=1.0,
        cold_first_audio_seconds=2.5 * scale, spoken=tuple(spoken),
        real_time_factor=Percentiles(p50=0.8 * scale, p90=0.9, p95=1.0, count=3),
        first_audio=Percentiles(p50=0.4 * scale, p90=0.5 * scale, p95=0.6 * scale, count=3),
        stages={k: v * scale for k, v in STAGES.items()}, tokens_per_second=50.0, speed=1 / scale,
        core_seconds=0.75 * scale,
        memory=MemoryUse(loaded_bytes=700_000_000, peak_bytes=900_000_000, stages={
            "speech_lm": StageMemory(loaded_bytes=400_000_000, peak_bytes=None)}),
        energy=energy if metered else {"available": False, "reasons": {"rapl": "no", "perf": "no"}},
        quality={"lm_kld": 0.0005},
        solver=SolverUsed(
            name="calibrated", evaluations=7, limit=0.47,
            curve=tuple(Point(evaluations=n, decibel=3.0 / n) for n in (5, 6, 7, 8)),
            original=Point(evaluations=20, decibel=0.47)),
        at_once=AtOnce(callers=2, audio_seconds_a_second=1.9, gain=1.3, latency=Percentiles(
            p50=3.0, p90=3.5, p95=3.75, count=8)),
        failures=(Failure(text="<b>x</b>", message="runaway & so"),),
        long_text=None, long_streams=(), goals=(),
        operators={"hift": {"Conv": 0.5, "Sin": 0.25}}, operators_missing="",
    )  # fmt: skip


def result(*subjects: Subject) -> Result:
    machine = Environment(
        machine="x86_64", cpu="A <CPU>", isa=("avx2",), kinds={"P": "0", "E": "1"}, allowed="0-1",
        quota_cpus=1.5, governor="powersave", memory_bytes=8_000_000_000, system="Linux 6",
        python="3.11",
    )  # fmt: skip
    return Result(
        schema=SCHEMA, edgepack="0.1", taken="2026-01-01T00:00:00+00:00", rounds=3, warm_up=1,
        seed=0, environment=machine, subjects=subjects,
    )  # fmt: skip


@pytest.fixture(scope="module")
def text() -> str:
    return page.render(
        [result(subject("x ort", 1.0, metered=True), subject("x openvino", 1.4, metered=True))]
    )


class Parts(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]


def test_the_page_needs_nothing_else(text: str) -> None:
    parts = Parts(text)
    assert all(link.startswith("#") for link in parts.links)
    assert not {"script", "link", "iframe", "img", "object"} & set(parts.tags)
    assert "url(http" not in text
    assert "@import" not in text


def test_the_page_says_what_was_measured(text: str) -> None:
    for words in ("×1.00", "×0.71", "580 MB", "8.00 J an utterance, net 1.00", "quota of 1.5 CPUs",
                  "Conv 67 %, Sin 33 %", "governor powersave", "lm_kld 0.0005",
                  "calibrated, 7 evaluations", "2, 1.90 s of audio a second, ×1.30",
                  "3.00, 3.75 s"):  # fmt: skip
        assert words in text, words
    assert "<b>x</b>" not in text
    assert "&lt;b&gt;x&lt;/b&gt;" in text
    assert "A &lt;CPU&gt;" in text


def test_plots_are_drawings_whose_letters_are_letters(text: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    parts = (
        "speech_lm", "seconds until", "MB resident", "joules", "real-time factor", "evaluations of",
    )  # fmt: skip
    for words, drawing in zip(parts, drawings, strict=True):
        assert words in drawing
        assert "var(--p00)" in drawing or "var(--p02)" in drawing
    assert not re.search(r"#0001\w\w", text)


def test_no_letter_of_a_plot_is_cut_off(text: str) -> None:
    for drawing in re.findall(r"<svg viewBox.*?</svg>", text, re.DOTALL):
        _, _, width, height = map(float, drawing.split('"')[1].split())
        places = re.findall(r'<text [^>]*x="([\d.-]+)" y="([\d.-]+)"', drawing)
        assert places
        for x, baseline in places:
            assert 0 <= float(x) < width
            assert 5 < float(baseline) < height - 2  # what hangs below the line is 2 px


def test_without_a_meter_there_is_no_plot_of_energy() -> None:
    text = page.render([result(subject("x ort", 1.0)), result(subject("y ort", 1.0))])
    assert text.count("<svg") == 10
    assert "no energy meter on this machine" in text


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_the_plots(text: str, tmp_path: Path, width: int, *, dark: bool) -> None:
    """Bars have the colours of the style sheet, on its paper, at the width of a phone too."""
    import matplotlib.image

    (tmp_path / "page.html").write_text(text, "utf-8")
    shot = tmp_path / "shot.png"
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--window-size={max(width, 500)},3000",
        f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        (tmp_path / "page.html").as_uri(),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    seen = np.round(matplotlib.image.imread(shot)[..., :3] * 255).astype(int)
    paper, bars = ((22, 22, 20), (74, 163, 223)) if dark else ((255, 255, 255), (0, 114, 178))
    assert (seen[-1, 0] == paper).all()
    assert (seen == bars).all(-1).sum() > 1000
