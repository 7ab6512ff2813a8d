"""Which meter is chosen, what a window is worth, and what the record says."""

import threading
from pathlib import Path

import pytest
from trees import grow

from edgepack.bundle.manifest import Device
from edgepack.energy import measurement
from edgepack.energy.measurement import Meters, Reading
from edgepack.energy.meter import CounterWindow, Instrument, MeterQuality, PowerWindow, quality
from edgepack.errors import UsageError
from edgepack.machine.probe import Machine, UnusableError
from energy.fakes import Time, machine, rising

ZONE = "sys/class/powercap/intel-rapl:0"


def instrument(update: float = 0.1, best: MeterQuality = "measured") -> Instrument:
    return Instrument("package", "a file", update, lambda: CounterWindow(dict, 1.0), best)


def reading(
    joules: float | None, seconds: float = 10.0, worth: MeterQuality = "measured"
) -> Reading:
    return Reading("rapl", "a file", "package", worth, joules, seconds, 100, 0, ())


@pytest.mark.parametrize(
    ("updates", "update", "best", "worth"),
    [
        (20, 0.1, "measured", "measured"),
        (19, 0.1, "measured", "measured_coarse"),
        (50, 0.5, "measured", "measured_coarse"),
        (2, 0.1, "measured", "unavailable"),
        (50, 0.1, "derived", "derived"),
        (50, 0.1, "measured_coarse", "measured_coarse"),
        (0, 0.1, "modelled", "modelled"),
    ],
)
def test_a_window_is_worth_what_changed_in_it(
    updates: int, update: float, best: MeterQuality, worth: MeterQuality
) -> None:
    window = CounterWindow(dict, 1.0, updates=updates)
    assert quality(instrument(update, best), window) == worth


def test_automatic_choice_is_the_targets_then_by_rank(tmp_path: Path) -> None:
    time = Time()
    root = grow(
        tmp_path,
        {
            f"{ZONE}/name": "package-0",
            f"{ZONE}/max_energy_range_uj": 10**12,
            f"{ZONE}/energy_uj": 1,
        },
    )
    rising(root / ZONE / "energy_uj", 1_000_000, time)
    found = measurement.select("auto", machine(root, time), Device(meters=("perf",)))
    assert found.name == "rapl"
    assert "no /sys/bus/event_source" in found.reasons["perf"]
    assert next(iter(found.reasons)) == "perf"
    named = measurement.select("rapl", machine(root, time), Device())
    assert named.name == "rapl"


def test_a_machine_without_a_meter_says_why_of_each(tmp_path: Path) -> None:
    found = measurement.select("auto", machine(tmp_path), Device())
    assert found.name is None
    assert set(found.reasons) == set(measurement.order(Device()))
    assert "nvml" not in found.reasons  # of a board that speech does not run on
    record = measurement.record(found, None, utterances=1, audio_seconds=1.0)
    assert record == {"available": False, "reasons": dict(found.reasons)}
    assert measurement.sentence(record).startswith("no energy meter on this machine")


def test_a_meter_asked_for_by_name_has_to_be_usable(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match="--energy rapl: no RAPL zones"):
        measurement.select("rapl", machine(tmp_path), Device())
    with pytest.raises(UsageError, match="did you mean 'rapl'"):
        measurement.select("rappl", machine(tmp_path), Device())
    assert measurement.select("none", machine(tmp_path), Device()).reasons == {
        "all": "not asked for (--energy none)"
    }


def test_the_record_has_gross_and_net() -> None:
    meters = Meters("rapl", instrument(), {"perf": "no"})
    idle = measurement.baseline(reading(40.0), reading(42.0))
    assert idle == (4.1, ())
    record = measurement.record(meters, reading(120.0), utterances=5, audio_seconds=10.0, idle=idle)
    assert record["gross_j"] == 120.0
    assert record["gross_j_per_utterance"] == 24.0
    assert record["gross_j_per_audio_s"] == 12.0
    assert record["gross_wh_per_audio_min"] == pytest.approx(0.2, abs=1e-12)
    assert record["net_j"] == pytest.approx(120 - 41.0, abs=1e-9)
    assert record["average_w"] == 12.0
    for key in ("method", "source", "scope", "quality", "window_s", "updates_in_window",
                "baseline_w"):  # fmt: skip
        assert record[key] is not None
    assert "24.00 J an utterance, net 15.80" in measurement.sentence(record)


def test_more_idle_than_work_is_clamped_and_drift_flagged() -> None:
    idle = measurement.baseline(reading(40.0), reading(60.0))
    assert idle is not None
    record = measurement.record(
        Meters("rapl", instrument()), reading(10.0), utterances=1, audio_seconds=1.0, idle=idle
    )
    assert record["net_j"] == 0.0
    assert record["flags"] == ["baseline_drift", "net_clamped"]
    assert measurement.baseline(reading(None), reading(1.0)) is None


def test_a_window_with_too_few_updates_has_no_number() -> None:
    found = measurement.reading(
        "rapl", instrument(), CounterWindow(dict, 1.0, counts=9, updates=2), 0.5
    )
    assert found.joules is None
    record = measurement.record(
        Meters("rapl", instrument()), found, utterances=1, audio_seconds=1.0
    )
    assert record["available"] is False
    assert record["reasons"]["rapl"] == "2 updates in 0.50 s; 3 are the least"


def test_measuring_polls_while_the_work_goes_on() -> None:
    power = Instrument("package", "sensor", 0.01, lambda: PowerWindow(iter(range(10**6)).__next__))
    with measurement.measuring(Meters("hwmon", power), Machine()) as readings:
        threading.Event().wait(0.6)
    (found,) = readings
    assert found.updates >= 8
    assert found.joules is not None
    assert found.joules > 0
    assert 0.6 <= found.seconds < 5


def test_a_sensor_that_fails_on_the_way_gives_no_number() -> None:
    values = iter([1.0, 2.0])

    def watts() -> float:
        try:
            return next(values)
        except StopIteration:
            raise UnusableError("the charger was plugged in") from None

    power = Instrument("battery_whole_device", "battery", 0.01, lambda: PowerWindow(watts))
    with measurement.measuring(Meters("battery", power), Machine()) as readings:
        threading.Event().wait(0.3)
    assert readings[0].joules is None
    assert readings[0].flags == ("the charger was plugged in",)


def test_without_a_meter_nothing_is_measured() -> None:
    with measurement.measuring(Meters(None, None), Machine()) as readings:
        pass
    assert readings == []
