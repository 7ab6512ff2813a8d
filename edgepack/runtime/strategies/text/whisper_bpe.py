"""Byte-level BPE by ranks, whose instructions end in plain text.

Source: cosyvoice/cli/frontend.py (`frontend_instruct`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from edgepack.bundle.host import TextPart
from edgepack.runtime.text.front_end import Frontend
from edgepack.runtime.text.normalization import Normalization


class Record(TextPart, frozen=True, tag="whisper_bpe"):
    """`end_of_prompt` is no token of its own."""

    def unknown(self, vocabulary: Mapping[str, int]) -> str:
        """Nothing."""
        return ""

    @property
    def added(self) -> Sequence[str]:
        """The end of instructions: text whose tokens may be in no word of a language."""
        return (self.end_of_prompt,)


def front_end(tokenizer: Any, settings: Record, normalize: Normalization) -> Frontend:
    """The front end over a tokenizer."""
    return Frontend(tokenizer, settings.end_of_prompt, normalize)


STRATEGY = front_end
