"""Energy of a piece of work: choosing a meter, measuring a window, and a record of how it was done.

A meter is usable only if its value was seen to advance. Without a measurement there is no number.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from edgepack.bundle.manifest import Device
from edgepack.energy.meter import FEW, Instrument, MeterQuality, Window, meter, names, quality
from edgepack.machine.probe import Machine, UnusableError

_FASTEST_POLL = 0.05  # seconds; reading a meter takes time, too
_PATIENCE_SECONDS, _LEAST_PATIENCE = 10.0, 1.0
_DRIFT = 0.10


@dataclass(frozen=True)
class Meters:
    """The meter to use, None if there is none, and why each of the others cannot be used."""

    name: str | None
    instrument: Instrument | None
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """Energy of one window, and how it was measured. `seconds` is its length.

    `joules` is None if the quality is unavailable: the value did not advance often enough.
    """

    method: str
    source: str
    scope: str
    quality: MeterQuality
    joules: float | None
    seconds: float
    updates: int
    wraps: int
    flags: tuple[str, ...]


def advances(instrument: Instrument, machine: Machine) -> bool:
    """Whether the meter's energy grows within a few updates: that it exists is not enough."""
    window = instrument.window()
    start = machine.clock()
    patience = min(max(20 * instrument.update_s, _LEAST_PATIENCE), _PATIENCE_SECONDS)
    while machine.clock() - start < patience:
        window.poll(machine.clock())
        if window.joules > 0:
            return True
        machine.sleep(max(instrument.update_s, 0.01))
    return False


def usable(name: str, machine: Machine, device: Device, argument: str = "") -> Instrument:
    """The instrument of a meter, checked to advance if it is live; raises UnusableError if not."""
    instrument = meter(name).open(machine, device, argument)
    if instrument.live and not advances(instrument, machine):
        raise UnusableError(f"{instrument.source}: the value does not advance")
    return instrument


def order(device: Device) -> list[str]:
    """Names of meters to try in order: those of the target's profile, then the others by rank."""
    ranked = [(rank, n) for n in names() if (rank := meter(n).rank) is not None]
    others = [n for _, n in sorted(ranked) if n not in device.meters]
    return [*device.meters, *others]


def select(wish: str, machine: Machine, device: Device) -> Meters:
    """The meter for `auto`, `none`, a name, or a name with an argument after a colon.

    Raises UnusableError if a meter that is asked for by name is not usable, UsageError if unknown.
    """
    if wish == "none":
        return Meters(None, None, {"all": "not asked for (--energy none)"})
    if wish != "auto":
        name, _, argument = wish.partition(":")
        try:
            return Meters(name, usable(name, machine, device, argument))
        except UnusableError as error:
            raise UnusableError(f"--energy {name}: {error}") from None
    reasons: dict[str, str] = {}
    for name in order(device):
        try:
            return Meters(name, usable(name, machine, device), reasons)
        except UnusableError as error:
            reasons[name] = str(error)
    return Meters(None, None, reasons)


class Measurement:
    """A window that is being measured, with a thread that polls the meter; `reading` ends it."""

    def __init__(self, name: str, instrument: Instrument, machine: Machine) -> None:
        """Read the first value and begin to poll."""
        self._name, self._instrument, self._machine = name, instrument, machine
        self._window: Window = instrument.window()
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._failed: UnusableError | None = None
        self._start = self._end = machine.clock()
        self._poll()
        period = max(instrument.update_s, _FASTEST_POLL)
        self._thread = threading.Thread(
            target=self._run, args=(period,), name="edgepack-meter", daemon=True
        )
        self._thread.start()

    def _run(self, period: float) -> None:
        while not self._done.wait(period):
            self._poll()

    def _poll(self) -> None:
        with self._lock:
            try:
                self._end = self._machine.clock()
                self._window.poll(self._end)
            except UnusableError as error:
                self._failed = error

    def reading(self) -> Reading:
        """The last value and the end of the window."""
        self._done.set()
        self._thread.join()
        return self.so_far()

    def so_far(self) -> Reading:
        """The window up to now, which goes on."""
        self._poll()
        with self._lock:
            seconds = self._end - self._start
            return reading(self._name, self._instrument, self._window, seconds, self._failed)


def reading(
    name: str,
    instrument: Instrument,
    window: Window,
    seconds: float,
    failed: UnusableError | None = None,
) -> Reading:
    """A window as a record."""
    flags = [*instrument.flags, *window.flags]
    try:
        worth: MeterQuality = "unavailable" if failed else quality(instrument, window)
        joules: float | None = window.joules
        updates = window.updates
    except UnusableError as error:
        worth, joules, updates, failed = "unavailable", None, 0, error
    if failed:
        flags.append(str(failed))
    elif worth == "unavailable":
        flags.append(f"{updates} updates in {seconds:.2f} s; {FEW} are the least")
    return Reading(
        name,
        instrument.source,
        instrument.scope,
        worth,
        None if worth == "unavailable" else joules,
        seconds,
        updates,
        window.wraps,
        tuple(flags),
    )


@contextmanager
def measuring(meters: Meters, machine: Machine) -> Iterator[list[Reading]]:
    """Measure the block; its reading is in the list afterwards, none if there is no meter."""
    readings: list[Reading] = []
    if meters.name is None or meters.instrument is None:
        yield readings
        return
    measurement = Measurement(meters.name, meters.instrument, machine)
    try:
        yield readings
    finally:
        readings.append(measurement.reading())


def baseline(before: Reading, after: Reading) -> tuple[float, tuple[str, ...]] | None:
    """Mean idle watts of two windows, and a flag if they differ by more than a tenth."""
    if before.joules is None or after.joules is None:
        return None
    one, other = before.joules / before.seconds, after.joules / after.seconds
    drift = abs(one - other) > _DRIFT * max(one, other)
    return (one + other) / 2, ("baseline_drift",) if drift else ()


def record(
    meters: Meters,
    found: Reading | None,
    *,
    utterances: int,
    audio_seconds: float,
    idle: tuple[float, tuple[str, ...]] | None = None,
) -> dict[str, Any]:
    """A reading for reports: joules an utterance and a second of audio, gross and net of idling.

    It says how they were measured. Without a meter or a value it says why, and has no number.
    """
    if found is None or found.joules is None:
        why = {found.method: "; ".join(found.flags)} if found else {}
        return {"available": False, "reasons": {**meters.reasons, **why}}
    gross, flags = found.joules, [*found.flags]
    net: float | None = None
    if idle is not None and found.quality != "modelled":
        watts, drift = idle
        net = gross - watts * found.seconds
        flags += drift
        if net < 0:
            net = 0.0
            flags.append("net_clamped")
    shares: dict[str, float | None] = {}
    for kind, joules in (("gross", gross), ("net", net)):
        per_audio = None if joules is None else joules / audio_seconds if audio_seconds else None
        shares |= {
            f"{kind}_j": joules,
            f"{kind}_j_per_utterance": None if joules is None else joules / max(utterances, 1),
            f"{kind}_j_per_audio_s": per_audio,
            f"{kind}_wh_per_audio_min": None if per_audio is None else per_audio / 60,
        }
    return {
        "available": True,
        "method": found.method,
        "source": found.source,
        "scope": found.scope,
        "quality": found.quality,
        "estimate": found.quality == "modelled",
        "window_s": found.seconds,
        "updates_in_window": found.updates,
        "wraps": found.wraps,
        "baseline_w": idle[0] if idle else None,
        "average_w": gross / found.seconds if found.seconds else None,
        **shares,
        "flags": flags,
        "reasons": dict(meters.reasons),
    }


def sentence(energy: Mapping[str, Any]) -> str:
    """A record in a line, for people; an estimate is called one."""
    if not energy["available"]:
        reasons = energy["reasons"]
        if len(reasons) == 1:
            return f"not measured ({'; '.join(reasons.values())})"
        return "no energy meter on this machine ('edgepack doctor' says why, meter by meter)"
    estimate = energy["estimate"]
    sign, label = ("~", f"ESTIMATE: {energy['source']}") if estimate else ("", energy["source"])
    net = energy["net_j_per_utterance"]
    more = "" if net is None else f", net {net:.2f}"
    per_audio = energy["gross_j_per_audio_s"]
    rate = "" if per_audio is None else f", {sign}{per_audio:.2f} J a second of audio"
    return (
        f"{sign}{energy['gross_j_per_utterance']:.2f} J an utterance{more}{rate} "
        f"({label}; {energy['scope']}, {energy['quality']}, {energy['window_s']:.1f} s, "
        f"{energy['updates_in_window']} updates)"
    )
