"""The opening of a prompt that a language model always wants: up to the mark of its end.

CosyVoice3 was trained on prompts that begin with a system message and `<|endofprompt|>`, and the
original refuses text without that mark. Source: cosyvoice/llm/llm.py (`CosyVoice3LM`) and
cosyvoice/cli/model.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from edgepack.errors import UsageError


@dataclass(frozen=True)
class Opening:
    """Text ids of the usual opening; the last one is the mark that ends it."""

    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        """Raises ValueError without a mark."""
        if not self.ids:
            raise ValueError("an opening has at least its mark")

    @property
    def mark(self) -> int:
        """The text id that ends an opening."""
        return self.ids[-1]

    def completed(self, prompt_text: Sequence[int], text: Sequence[int] = ()) -> list[int]:
        """The prompt's text with the usual opening, unless the mark is in it or in the text.

        `prompt_text` is a transcript, an instruction, or nothing.
        """
        if self.mark in prompt_text or self.mark in text:
            return list(prompt_text)
        return [*self.ids, *prompt_text]

    def divided(self, prompt_text: Sequence[int]) -> tuple[list[int], list[int]]:
        """The prompt's text up to and with the mark, and the rest.

        While text arrives, the former is given at once and the latter mixed with speech. Raises
        UsageError without a mark.
        """
        if self.mark not in prompt_text:
            raise UsageError("the text of this prompt has no end of its opening; complete it first")
        end = list(prompt_text).index(self.mark) + 1
        return list(prompt_text[:end]), list(prompt_text[end:])
