"""Typed reads from a configuration tree, with one-line errors that name the missing entry."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from edgepack.errors import IntegrityError, UnsupportedError, UsageError
from edgepack.model.checkpoint.yaml import Tagged

T = TypeVar("T", int, float, str, bool, list[Any], dict[str, Any])
_MISSING: Any = object()
# The largest size that is accepted, far above that of any release: graphs get as large as it says.
_MOST = 1 << 16
_MOST_OF = {
    "vocab_size": 1 << 20,
    "num_hidden_layers": 256,
    "num_attention_heads": 256,
    "num_heads": 256,
    "token_mel_ratio": 16,
    "pre_lookahead_len": 64,
    "nb_harmonics": 64,
    "n_fft": 2048,
}

_SHOWN = 80  # characters of a wrong value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


@dataclass(frozen=True)
class Config:
    """One mapping of a configuration file; `where` is the file and the path of keys to it."""

    where: str
    values: Mapping[str, Any]
    target: str = ""

    def section(self, key: str) -> "Config":
        """The mapping below `key`, whether it is tagged or plain."""
        value = self.values.get(key)
        target = ""
        if isinstance(value, Tagged):
            value, target = value.value, value.target
        if not isinstance(value, dict):
            raise UsageError(f"{self.where}.{key} is missing or not a mapping")
        return Config(f"{self.where}.{key}", value, target)

    def get(self, key: str, kind: type[T], default: T = _MISSING) -> T:
        """The value of `key` as `kind`; an int is accepted where a float is asked for."""
        value = self.values.get(key, default)
        if value is _MISSING or value is None:
            raise UsageError(f"{self.where}.{key} is missing")
        if kind is float and type(value) is int and abs(value) < 1 << 63:
            value = float(value)
        if kind is int and isinstance(value, float) and value.is_integer():
            value = int(value)
        odd = isinstance(value, bool) if kind is not bool else False
        odd = odd or (isinstance(value, float) and not math.isfinite(value))
        if odd or not isinstance(value, kind):
            raise UsageError(f"{self.where}.{key} is {_short(value)}, expected {kind.__name__}")
        return value

    def positive(self, key: str, default: int = _MISSING) -> int:
        """A whole number above zero; raises IntegrityError if no network has so large a size."""
        value = self.get(key, int, default)
        if value < 1:
            raise UsageError(
                f"{self.where}.{key} is {_short(value)}, expected a positive whole number"
            )
        if value > (most := _MOST_OF.get(key, _MOST)):
            raise IntegrityError(f"{self.where}.{key} is {value}, more than {most:,}; refused")
        return value

    def expect(self, **wanted: object) -> None:
        """Refuse settings the networks of this version do not implement; absent ones pass."""
        for key, allowed in wanted.items():
            value = self.values.get(key, allowed)
            if value != allowed:
                raise UnsupportedError(
                    f"{self.where}.{key} is {_short(value)}; this version only builds {allowed!r}"
                )
