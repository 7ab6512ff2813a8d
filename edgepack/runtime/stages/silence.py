"""Long silences between speech tokens, cut before they are made to sound.

Source: cosyvoice/cli/model.py (`CosyVoice3Model.llm_job`).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Silence:
    """Which speech tokens are silence, and how many of them in a row are kept."""

    tokens: frozenset[int]
    longest: int

    def keeper(self) -> Callable[[int], bool]:
        """Whether a token is kept, asked for one after the other."""
        run = 0

        def keeps(token: int) -> bool:
            nonlocal run
            run = run + 1 if token in self.tokens else 0
            return run <= self.longest

        return keeps

    def cut(self, tokens: Iterable[int]) -> Iterator[int]:
        """The tokens without those that a silence has too many of.

        It is for what takes tokens from the language model: whose history keeps every one.
        """
        return filter(self.keeper(), tokens)
