"""What people want of speech on a device: goals of a target's profile, which its bundles carry.

Gates say whether a bundle may exist. Goals do not: a benchmark measures them on the device.
"""

from typing import Annotated, Literal

from msgspec import Meta

from edgepack.bundle.ranges import Positive, Struct

GoalName = Literal[
    "interactive_first_audio_s", "first_audio_s", "rtf", "long_rtf", "peak_mb", "wh_per_minute",
    "interrupted_share",
]  # fmt: skip
_Share = Annotated[float, Meta(gt=0.0, le=1.0)]


class Goals(Struct, frozen=True):
    """The largest value that each figure may have; None means no goal.

    `interactive_first_audio_s` and `first_audio_s` are seconds until a stream's first audio, where
    somebody waits for it and otherwise; `rtf` and `long_rtf` real-time factors of utterances and of
    a long text; `peak_mb` is resident memory in MB of 10⁶ bytes; `wh_per_minute` watt-hours for a
    minute of speech; `interrupted_share` the share of long texts whose sound stops on the way.
    """

    interactive_first_audio_s: Positive | None = 0.2
    first_audio_s: Positive | None = 1.0
    rtf: Positive | None = 1.0
    long_rtf: Positive | None = 1.0
    peak_mb: Positive | None = None
    wh_per_minute: Positive | None = 10.0
    interrupted_share: _Share | None = 0.001
