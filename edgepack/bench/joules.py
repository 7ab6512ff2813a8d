"""A record of energy (`energy.measurement`) as rows of a table."""

from collections.abc import Mapping
from typing import Any

NOT_MEASURED = "not measured"
HOW = ("energy: sensor", "energy: boundary", "energy: window, idle")
_RATES = (
    ("energy an utterance", "j_per_utterance", "J"),
    ("energy a second of audio", "j_per_audio_s", "J"),
    ("energy a minute of speech", "wh_per_audio_min", "Wh"),
)


def rows(energy: Mapping[str, Any]) -> dict[str, str]:
    """Rows of a table: energy gross and net of idling, by title, and how it was measured.

    A figure that was not measured is a text that says so; an estimate is marked as one.
    """
    if not energy["available"]:
        return dict.fromkeys([*(title for title, *_ in _RATES), *HOW], NOT_MEASURED)
    sign, label = ("~", "ESTIMATE, ") if energy["estimate"] else ("", "")
    idle = None if energy["net_j"] is None else energy["baseline_w"]
    how = (
        f"{label}{energy['method']}: {energy['source']}",
        f"{energy['scope']}, {energy['quality']}",
        f"{energy['window_s']:.1f} s, {energy['updates_in_window']} updates; "
        + ("idle not subtracted" if idle is None else f"net: {idle:.3g} W of idle subtracted"),
    )
    found = {}
    for title, name, unit in _RATES:
        gross, net = energy[f"gross_{name}"], energy[f"net_{name}"]
        more = "" if net is None else f", net {net:.3g} {unit}"
        found[title] = NOT_MEASURED if gross is None else f"{sign}{gross:.3g} {unit}{more}"
    return {**found, **dict(zip(HOW, how, strict=True))}


def missing(energy: Mapping[str, Any]) -> str:
    """Why there is no figure of energy, in one line."""
    reasons = list(energy["reasons"].values())
    several = "no meter on this machine ('edgepack doctor' says why, meter by meter)"
    return str(reasons[0]) if len(reasons) == 1 else several
