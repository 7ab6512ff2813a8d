"""Configuration entries: their types, and a line that says which one is wrong."""

from typing import Any

import pytest

from edgepack.errors import UnsupportedError, UsageError
from edgepack.model.checkpoint.config import Config
from edgepack.model.checkpoint.yaml import Tagged

TREE = {
    "whole": 3,
    "float": 2.0,
    "half": 0.5,
    "yes": True,
    "text": "a",
    "none": None,
    "zero": 0,
    "list": [1],
    "nan": float("nan"),
    "inf": float("inf"),
    "plain": {"inner": 1},
    "tagged": Tagged("new", "cosyvoice.Net", {"inner": 2}),
    "odd": Tagged("new", "cosyvoice.Net", [1]),
}
CONFIG = Config("a.yaml", TREE)


@pytest.mark.parametrize(
    ("key", "kind", "value"),
    [
        ("whole", int, 3),
        ("float", int, 2),
        ("whole", float, 3.0),
        ("half", float, 0.5),
        ("yes", bool, True),
        ("text", str, "a"),
        ("list", list, [1]),
        ("plain", dict, {"inner": 1}),
    ],
)
def test_values_have_the_type_asked_for(key: str, kind: type[Any], value: object) -> None:
    found = CONFIG.get(key, kind)
    assert found == value
    assert type(found) is kind


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("half", int),
        ("yes", int),
        ("yes", float),
        ("whole", bool),
        ("whole", str),
        ("text", float),
        ("text", list),
        ("nan", float),
        ("inf", float),
        ("nan", int),
        ("tagged", dict),
    ],
)
def test_another_type_is_refused_by_name(key: str, kind: type[Any]) -> None:
    with pytest.raises(UsageError, match=rf"a\.yaml\.{key} is .*, expected {kind.__name__}"):
        CONFIG.get(key, kind)


@pytest.mark.parametrize("key", ["missing", "none"])
def test_a_missing_value_is_named(key: str) -> None:
    with pytest.raises(UsageError, match=rf"a\.yaml\.{key} is missing"):
        CONFIG.get(key, int)


def test_a_default_stands_for_a_missing_value_only() -> None:
    assert CONFIG.get("missing", int, 7) == 7
    assert CONFIG.get("whole", int, 7) == 3
    with pytest.raises(UsageError, match="none is missing"):
        CONFIG.get("none", int, 7)


@pytest.mark.parametrize("key", ["zero", "half", "text", "yes"])
def test_sizes_are_positive_whole_numbers(key: str) -> None:
    assert CONFIG.positive("whole") == 3
    with pytest.raises(UsageError, match=rf"a\.yaml\.{key} is"):
        CONFIG.positive(key)


def test_sections_tell_their_path() -> None:
    section = CONFIG.section("tagged")
    assert (section.where, section.target) == ("a.yaml.tagged", "cosyvoice.Net")
    assert (CONFIG.section("plain").target, CONFIG.section("plain").positive("inner")) == ("", 1)
    with pytest.raises(UsageError, match=r"a\.yaml\.tagged\.deep is missing"):
        section.section("deep")


@pytest.mark.parametrize("key", ["missing", "whole", "odd", "list"])
def test_what_is_no_section_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match=rf"a\.yaml\.{key} is missing or not a mapping"):
        CONFIG.section(key)


def test_a_setting_that_no_network_implements_is_unsupported() -> None:
    CONFIG.expect(text="a", missing="b")
    with pytest.raises(UnsupportedError, match=r"a\.yaml\.text is 'a'; .* only builds 'b'"):
        CONFIG.expect(text="b")
