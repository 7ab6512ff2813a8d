"""Byte-level BPE for a language model whose prompts always begin with an opening.

Source: cosyvoice/llm/llm.py (`CosyVoice3LM`), which refuses text without its mark.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from edgepack.bundle.host import HostLoops, TextPart
from edgepack.bundle.ranges import Line
from edgepack.runtime.stages.decode import Context
from edgepack.runtime.strategies.text._opening import Opening
from edgepack.runtime.text.front_end import Frontend
from edgepack.runtime.text.normalization import Normalization


class Record(TextPart, frozen=True, tag="opened_bpe"):
    """`opening` is the usual one, before the token that ends it."""

    opening: Line

    @property
    def added(self) -> Sequence[str]:
        """The usual opening, without its end, which is a token of its own."""
        return (self.opening,)

    def problems(self, host: HostLoops) -> Iterator[str]:
        """The end inside the opening."""
        if self.end_of_prompt in self.opening:
            yield "its opening has the token in it that ends it"


@dataclass(frozen=True)
class OpenedFrontend(Frontend):
    """A front end that puts the `usual` opening where one is missing."""

    usual: str = ""

    @cached_property
    def opening(self) -> Opening:
        """The usual opening, and the mark that ends any."""
        return Opening(tuple(self.ids(self.usual + self.end_of_prompt)))

    def context(self, given: Context, text: Sequence[int] = ()) -> Context:
        """The context with an opening, unless the mark that ends one is in it or in the text."""
        prompt = self.opening.completed(given.text, text)
        if self.opening.mark not in prompt:
            return given
        opening, rest = self.opening.divided(prompt)
        return replace(given, opening=opening, text=rest)


def front_end(tokenizer: Any, settings: Record, normalize: Normalization) -> OpenedFrontend:
    """The front end over a tokenizer."""
    return OpenedFrontend(tokenizer, settings.end_of_prompt, normalize, settings.opening)


STRATEGY = front_end
