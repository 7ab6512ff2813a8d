"""The names of packages that engines bring are where a person is told what to install."""

import tomllib
from pathlib import Path

import pytest

from edgepack import cli, discovery
from edgepack.runtime.engines.installed import SESSIONS, engines

PROJECT = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text("utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]


@pytest.mark.parametrize("name", engines())
def test_an_engine_has_an_extra_of_its_name(name: str) -> None:
    assert name in EXTRAS
    packages = discovery.strings(SESSIONS, name, "PACKAGES")
    assert packages
    assert cli._EXTRAS[packages[0]] == name
    assert {cli._EXTRAS[package] for package in packages} <= set(EXTRAS)


def test_whatever_is_advised_exists() -> None:
    assert set(cli._EXTRAS.values()) <= set(EXTRAS)
