"""Which utterances the language model decodes together with others."""

from dataclasses import dataclass

from edgepack.errors import UnsupportedError, UsageError

SENTENCES = 8  # of a text, that are decoded at once
_MOST = 64


@dataclass(frozen=True)
class Batching:
    """How many `rows` are decoded in one call at most; none if each is decoded alone.

    With `every` all utterances are rows, also if there is only one; otherwise the sentences of a
    text that is spoken whole and has several. Nothing else decides, as the samples of a row are not
    quite those of an utterance that is decoded alone. They are the same whatever other rows
    there are.
    """

    rows: int = 0
    every: bool = False

    def takes(self, utterances: int) -> bool:
        """Whether the utterances of a text that is spoken whole are rows."""
        return bool(self.rows) and (self.every or utterances > 1)

    @property
    def words(self) -> str:
        """What of it decides samples."""
        return "every" if self.every else "sentences" if self.rows else "none"


ALONE = Batching()


def require(rows: int | None) -> None:
    """Raise UsageError unless it is None, 0 or an even number of rows."""
    if rows is not None and (rows % 2 or not 0 <= rows <= _MOST):
        raise UsageError(f"a batch of {rows}: give an even number of rows up to {_MOST}, or 0")


def chosen(rows: int | None, lacking: str) -> Batching:
    """The batching of a bundle that was asked for `rows` or, with None, has what it can.

    `lacking` is why it cannot have any, or "". Raises UnsupportedError if that is asked for.
    """
    require(rows)
    if rows is None:
        return ALONE if lacking else Batching(SENTENCES)
    if rows and lacking:
        raise UnsupportedError(f"a batch of {rows}: {lacking}")
    return Batching(rows, every=True) if rows else ALONE
