"""What holds of every energy meter, and of every target's wish for one."""

from pathlib import Path

import pytest

from edgepack.bundle.manifest import Device
from edgepack.energy import measurement
from edgepack.energy.meter import meter, names
from edgepack.machine.probe import Machine, UnusableError
from edgepack.profiles import target


@pytest.mark.parametrize("name", names())
def test_a_machine_that_has_nothing_gives_a_reason_in_one_line(name: str, tmp_path: Path) -> None:
    time = [0.0]
    here = Machine(tmp_path, lambda: time[0], lambda s: time.__setitem__(0, time[0] + s))
    with pytest.raises(UnusableError) as caught:
        measurement.usable(name, here, Device())
    assert str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", target.names())
def test_meters_of_a_target_exist(name: str) -> None:
    for wanted in target.load(name).device.meters:
        assert meter(wanted)


def test_an_estimate_is_never_chosen_by_itself() -> None:
    assert "model" not in measurement.order(Device())
    assert len(set(measurement.order(Device()))) == len(measurement.order(Device()))
