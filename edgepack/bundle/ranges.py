"""Types with ranges for the fields of records that are read from files; msgspec checks them.

Sizes have upper bounds far above what a sound bundle needs, so that none makes a device run out of
memory or time. NaN and infinity are in no range.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

_PRINTED = r"^[^\x00-\x1f\x7f]*\Z"
_HEX = r"^([0-9a-f]{1,6}([- ][0-9a-f]{1,6})*)?\Z"
_PART = r"[A-Za-z0-9_+=-][A-Za-z0-9_.+=-]*"  # of a path: neither hidden nor .. nor empty

Number = Annotated[float, Meta(ge=-1e300, le=1e300)]
Amount = Annotated[float, Meta(ge=0.0, le=1e300)]
Magnitude = Annotated[float, Meta(ge=0.0, le=1e15)]
Positive = Annotated[float, Meta(gt=0.0, le=1e15)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Weight = Annotated[float, Meta(ge=-1e6, le=1e6)]
Ratio = Annotated[float, Meta(ge=0.0, le=1000.0)]
Frequency = Annotated[float, Meta(ge=0.0, le=1e6)]

Bytes = Annotated[int, Meta(ge=0, le=1 << 50)]
Count = Annotated[int, Meta(ge=0, le=1 << 50)]
Seed = Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]
Id = Annotated[int, Meta(ge=0, le=1 << 24)]
Length = Annotated[int, Meta(ge=0, le=1 << 20)]
Size = Annotated[int, Meta(ge=1, le=1 << 20)]
Few = Annotated[int, Meta(ge=1, le=1000)]
Some = Annotated[int, Meta(ge=0, le=1000)]
Threads = Annotated[int, Meta(ge=1, le=1024)]
Rate = Annotated[int, Meta(ge=8000, le=384_000)]

Text = Annotated[str, Meta(max_length=1 << 20)]
Line = Annotated[str, Meta(max_length=1000, pattern=_PRINTED)]
Word = Annotated[str, Meta(min_length=1, max_length=100, pattern=_PRINTED)]
Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=rf"^{_PART}\Z")]
FileName = Annotated[str, Meta(min_length=1, max_length=240, pattern=rf"^{_PART}(/{_PART})*\Z")]
Alphabet = Annotated[str, Meta(max_length=1 << 20, pattern=_HEX)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Schedule = Annotated[str, Meta(pattern=r"^(linear|cosine)\Z")]
Cpus = Annotated[str, Meta(pattern=r"^(all|performance|efficiency)\Z")]
Precision = Literal["fp32", "fp16", "int8", "int4"]  # from the finest to the coarsest


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A record of the manifest: immutable; unknown fields are refused."""
