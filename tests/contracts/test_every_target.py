"""Target profiles name what exists."""

import pytest

from edgepack import discovery
from edgepack.builder.backend import PACKAGE, backend
from edgepack.model.family import PACKAGE as FAMILIES
from edgepack.profiles import target
from edgepack.profiles.recipe import PRECISIONS
from edgepack.runtime.engines.installed import engines


@pytest.mark.parametrize("name", target.names())
def test_a_target_can_be_built(name: str) -> None:
    profile = target.load(name)
    assert profile.summary == profile.summary.strip()
    assert profile.architecture
    assert profile.runtimes
    for runtime, options in profile.runtimes.items():
        assert runtime in discovery.names(PACKAGE)
        assert runtime in engines()
        assert options.container in backend(runtime).containers
    for precision in profile.precision.values():
        assert precision in PRECISIONS


def test_there_are_plugins_at_all() -> None:
    assert target.names()
    assert engines()
    assert discovery.names(FAMILIES)
