"""Byte-level BPE of a `tokenizer.json`, with a token that ends instructions."""

from typing import Any

from edgepack.bundle.host import TextPart
from edgepack.runtime.text.front_end import Frontend
from edgepack.runtime.text.normalization import Normalization


class Record(TextPart, frozen=True, tag="byte_bpe"):
    """The tokenizer is a file of the `tokenizers` library, and all that is needed."""


def front_end(tokenizer: Any, settings: Record, normalize: Normalization) -> Frontend:
    """The front end over a tokenizer."""
    return Frontend(tokenizer, settings.end_of_prompt, normalize)


STRATEGY = front_end
