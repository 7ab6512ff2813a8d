"""Meters that sense power: Jetson rails, Raspberry Pi, batteries; an external log; an estimate."""

from pathlib import Path

import pytest
from trees import grow

from edgepack.bundle.manifest import Device, Watts
from edgepack.energy import measurement
from edgepack.energy.meter import PowerWindow, meter
from edgepack.energy.meters import external, rpi_pmic
from edgepack.energy.meters.external import METER as EXTERNAL
from edgepack.energy.meters.model import METER as MODEL
from edgepack.machine.probe import UnusableError
from energy.fakes import Time, machine, polled


def joules(root: Path, name: str, seconds: float = 10.0, argument: str = "") -> float:
    """Energy of a meter whose values stand still."""
    time = Time()
    instrument = meter(name).open(machine(root, time), Device(), argument)
    return polled(instrument, time, seconds / 10, 10).joules


def test_trapezoids() -> None:
    watts = iter([2.0, 4.0, 4.0, 0.0])
    window = PowerWindow(lambda: next(watts))
    for now in (0.0, 1.0, 1.5, 3.5):
        window.poll(now)
    assert window.joules == pytest.approx(3.0 + 2.0 + 4.0, abs=1e-9)
    assert window.updates == 2


def ina(chip: str, rails: dict[int, tuple[str, int, int]]) -> dict[str, object]:
    base = f"sys/bus/i2c/drivers/ina3221/{chip}/hwmon/hwmon1"
    files: dict[str, object] = {f"{base}/name": "ina3221", f"{base}/in7_label": "sum of shunts"}
    for channel, (label, millivolt, milliampere) in rails.items():
        files[f"{base}/in{channel}_label"] = label
        files[f"{base}/in{channel}_input"] = millivolt
        files[f"{base}/curr{channel}_input"] = milliampere
    return files


ORIN_NANO = ina(
    "1-0040",
    {1: ("VDD_IN", 5000, 1200), 2: ("VDD_CPU_GPU_CV", 5000, 400), 3: ("VDD_SOC", 5000, 300)},
)
AGX = {
    **ina("1-0040", {1: ("VDD_GPU_SOC", 19000, 100), 2: ("VDD_CPU_CV", 19000, 50),
                     3: ("VIN_SYS_5V0", 5000, 200)}),
    **ina("1-0041", {1: ("NC", 1, 1), 2: ("VDDQ_VDD2_1V8AO", 5000, 100)}),
}  # fmt: skip


def test_jetson_input_rail_is_used_alone(tmp_path: Path) -> None:
    root = grow(tmp_path, ORIN_NANO)
    assert meter("ina3221").open(machine(root), Device(), "").scope == "board_input"
    assert joules(root, "ina3221") == pytest.approx(60.0, abs=1e-9)


def test_jetson_agx_sums_the_rails_of_two_chips(tmp_path: Path) -> None:
    root = grow(tmp_path, AGX)
    assert meter("ina3221").open(machine(root), Device(), "").scope == "sum_of_rails"
    assert joules(root, "ina3221") == pytest.approx(10 * (1.9 + 0.95 + 1.0 + 0.5), abs=1e-9)


def test_jetson_of_jetpack_4(tmp_path: Path) -> None:
    base = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    files = {
        f"{base}/rail_name_0": "POM_5V_IN", f"{base}/in_power0_input": 4200,
        f"{base}/rail_name_1": "POM_5V_GPU", f"{base}/in_power1_input": 1000,
        f"{base}/rail_name_2": "POM_5V_CPU", f"{base}/in_power2_input": 900,
    }  # fmt: skip
    assert joules(grow(tmp_path, files), "ina3221") == pytest.approx(42.0, abs=1e-9)


def test_jetson_thor_has_the_true_input(tmp_path: Path) -> None:
    carrier = "sys/bus/i2c/devices/2-0044/hwmon/hwmon4"
    files = {
        **ina("1-0040", {1: ("VDD_GPU", 19000, 100)}),
        f"{carrier}/name": "ina238", f"{carrier}/power1_input": 31_500_000,
        f"{carrier}/in1_input": 19000, f"{carrier}/curr1_input": 1657,
    }  # fmt: skip
    assert joules(grow(tmp_path, files), "ina3221") == pytest.approx(315.0, abs=1e-9)


def test_jetson_rail_without_a_file(tmp_path: Path) -> None:
    root = grow(tmp_path, ORIN_NANO)
    next(root.rglob("curr1_input")).unlink()
    with pytest.raises(UnusableError, match="curr1_input is missing"):
        meter("ina3221").open(machine(root), Device(), "")


PMIC = """
     3V7_WL_SW_A current(0)=0.10000000A
       VDD_CORE_A current(7)=2.00000000A
           HDMI_A current(22)=0.01000000A
     3V7_WL_SW_V volt(8)=3.70000000V
       VDD_CORE_V volt(15)=0.80000000V
         EXT5V_V volt(24)=5.10000000V
"""


def test_raspberry_pi_pairs_rails_by_name() -> None:
    assert rpi_pmic.rails_watts(PMIC) == pytest.approx(0.37 + 1.6, abs=1e-9)


@pytest.mark.parametrize(("argument", "watts"), [("", 1.97), ("fit", 1.1451 * 1.97 + 0.5879)])
def test_raspberry_pi_5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, watts: float
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    time = Time()
    here = machine(tmp_path, time, lambda command: PMIC)
    instrument = meter("rpi_pmic").open(here, Device(), argument)
    assert instrument.best == ("derived" if argument else "measured")
    assert polled(instrument, time, 1.0, 10).joules == pytest.approx(10 * watts, abs=1e-9)


def test_raspberry_pi_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    here = machine(tmp_path, program=lambda command: 'error=1 error_msg="Command not registered"')
    with pytest.raises(UnusableError, match="only the Raspberry Pi 5"):
        meter("rpi_pmic").open(here, Device(), "")
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UnusableError, match="vcgencmd is not there"):
        meter("rpi_pmic").open(here, Device(), "")


def battery(name: str = "BAT0", **files: object) -> dict[str, object]:
    base = f"sys/class/power_supply/{name}"
    return {f"{base}/type": "Battery", **{f"{base}/{k}": v for k, v in files.items()}}


@pytest.mark.parametrize(
    ("files", "watts"),
    [
        ({"power_now": 8_500_000}, 8.5),
        ({"current_now": 1_500_000, "voltage_now": 11_400_000}, 17.1),
        ({"current_now": -900_000, "voltage_now": 4_000_000}, 3.6),  # a sign of its own
        ({"current_now": -900, "voltage_now": 4_000_000}, 3.6),  # mA where µA is meant
    ],
)
def test_battery(tmp_path: Path, files: dict[str, object], watts: float) -> None:
    mouse = battery("hidpp_battery_0", scope="Device", status="Discharging")
    root = grow(tmp_path, {**battery("battery", status="Discharging", **files), **mouse})
    assert joules(root, "battery") == pytest.approx(10 * watts, abs=1e-9)


@pytest.mark.parametrize("status", ["Charging", "Full"])
def test_a_battery_that_is_not_drained(tmp_path: Path, status: str) -> None:
    root = grow(tmp_path, battery(status=status, power_now=5))
    with pytest.raises(UnusableError, match=f"is {status}; unplug"):
        meter("battery").open(machine(root), Device(), "")


def test_a_battery_that_tells_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match="neither power_now nor"):
        meter("battery").open(machine(grow(tmp_path, battery(status="Discharging"))), Device(), "")
    with pytest.raises(UnusableError, match="no battery"):
        meter("battery").open(machine(tmp_path / "other"), Device(), "")


T = 2e9  # seconds since 1970


def log(path: Path, rows: list[tuple[float, float]]) -> Path:
    path.write_text("t_s,w\n" + "".join(f"{t},{w}\n" for t, w in rows))
    return path


def test_external_log_between_its_lines(tmp_path: Path) -> None:
    rows = [(T, 10.0), (T + 1, 20.0), (T + 3, 20.0), (T + 4, 0.0)]
    path = log(tmp_path / "log.csv", rows)
    whole = 15.0 + 40.0 + 10.0
    assert external.energy(rows, T, T + 4) == pytest.approx(whole, abs=1e-9)
    assert external.energy(rows, T + 0.5, T + 3.5) == pytest.approx(
        (15 + 20) / 4 + 40 + (20 + 10) / 4, abs=1e-9
    )
    clock = iter([T + 0.5, T + 3.5])
    window = type(EXTERNAL)(clock=lambda: next(clock)).open(machine(tmp_path), Device(), str(path))
    opened = window.window()
    opened.poll(0.0)
    opened.poll(1.0)
    assert opened.joules == pytest.approx(56.25, abs=1e-9)
    assert opened.updates == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
def test_external_log_of_a_spreadsheet(tmp_path: Path, encoding: str) -> None:
    """With a byte-order mark, and the line ends of Windows."""
    (tmp_path / "a.csv").write_bytes("t_s,w\r\n1.5,2\r\n".encode(encoding))
    assert external.read(tmp_path / "a.csv") == [(1.5, 2.0)]


def test_external_log_that_ends_too_early(tmp_path: Path) -> None:
    path = log(tmp_path / "log.csv", [(T, 1.0), (T + 1, 1.0)])
    clock = iter([T, T + 1.5])
    instrument = type(EXTERNAL)(clock=lambda: next(clock)).open(
        machine(tmp_path), Device(), str(path)
    )
    window = instrument.window()
    window.poll(0.0)
    window.poll(1.0)
    found = measurement.reading("external", instrument, window, 1.5)
    assert found.joules is None
    assert "does not cover the whole window" in found.flags[0]


@pytest.mark.parametrize(
    ("last", "instead"), [(60.0, "since the log began"), (T * 1000, "millisec")]
)
def test_external_log_of_another_clock(tmp_path: Path, last: float, instead: str) -> None:
    path = log(tmp_path / "log.csv", [(0.0, 1.0), (last, 1.0)])
    expected = f"t_s ends at .*; it has to be seconds since 1970.*and not {instead}"
    with pytest.raises(UnusableError, match=expected):
        meter("external").open(machine(tmp_path), Device(), str(path))


OTHER_LOGS = {
    "a,b\n1,2\n": "not a CSV with columns t_s,w; its first line has a,b",
    "t_s;w\n1;2\n": "not a CSV with columns t_s,w; its first line has t_s;w",
    "": "not a CSV with columns t_s,w; its first line has nothing",
    "t_s,w\nx,1\n": "not a CSV with columns t_s,w",
    "t_s,w\n2e9\n": "not a CSV with columns t_s,w",
    "t_s,w\n2e9,nan\n": "not a CSV with columns t_s,w .nan is no number",
    "t_s,w\ninf,1\n": "not a CSV with columns t_s,w .inf is no number",
    "t_s,w\n": "no lines yet",
}


@pytest.mark.parametrize("text", OTHER_LOGS)
def test_external_log_of_another_form(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(UnusableError, match=OTHER_LOGS[text]):
        meter("external").open(machine(tmp_path), Device(), str(path))


def test_external_log_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match="external needs a log"):
        meter("external").open(machine(tmp_path), Device(), "")
    with pytest.raises(UnusableError, match=r"no\.csv: No such file or directory"):
        meter("external").open(machine(tmp_path), Device(), str(tmp_path / "no.csv"))


def test_external_log_as_a_spreadsheet_saves_it(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"t_s,w\r\n{T},5\r\n", "utf-8-sig", newline="")
    assert external.read(path) == [(T, 5.0)]


def test_estimate_is_called_one(tmp_path: Path) -> None:
    watts = Watts(idle_w=2.0, active_w_per_core=4.0, provenance="assumed")
    cpu = iter([10.0, 10.5, 13.0])
    time = Time()
    instrument = type(MODEL)(cpu=lambda: next(cpu)).open(
        machine(tmp_path, time), Device(watts=watts), ""
    )
    window = polled(instrument, time, 1.0, 2)
    found = measurement.reading("model", instrument, window, 2.0)
    assert found.quality == "modelled"
    assert found.joules is not None
    share = (found.joules - 12.0) / 4.0  # of the machine's idle power
    assert 0 < share <= 1
    record = measurement.record(
        measurement.Meters("model", instrument), found, utterances=2, audio_seconds=4.0,
        idle=(1.0, ()),
    )  # fmt: skip
    assert record["estimate"] is True
    assert record["net_j"] is None  # a baseline is never taken off an estimate
    assert measurement.sentence(record).startswith("~")
    assert "ESTIMATE: CPU time x 4 W a core" in measurement.sentence(record)


def test_estimate_needs_figures(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match="needs a bundle whose target has watts"):
        meter("model").open(machine(tmp_path), Device(), "")
