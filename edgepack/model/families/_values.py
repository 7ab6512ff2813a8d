"""Values of a configuration that several families read in the same way."""

from typing import Any

from edgepack.errors import UsageError
from edgepack.model.checkpoint.config import Config

_MAX_LIST = 16  # levels, blocks or dilations


def divisor(section: Config, key: str, whole: int) -> int:
    """A number that has to divide another one."""
    value = section.positive(key)
    if whole % value:
        raise UsageError(f"{section.where}.{key} is {value}, which does not divide {whole}")
    return value


def numbers(section: Config, key: str) -> tuple[int, ...]:
    """A list of a few positive numbers."""
    values = section.get(key, list)
    _expect_few(section, key, values)
    return tuple(Config(section.where, {key: value}).positive(key) for value in values)


def lists(section: Config, key: str) -> tuple[tuple[int, ...], ...]:
    """A list of a few such lists."""
    values = section.get(key, list)
    _expect_few(section, key, values)
    return tuple(numbers(Config(section.where, {key: value}), key) for value in values)


def _expect_few(section: Config, key: str, values: list[Any]) -> None:
    if not 0 < len(values) <= _MAX_LIST:
        raise UsageError(
            f"{section.where}.{key} has {len(values)} entries, expected 1 to {_MAX_LIST}"
        )
