"""Long texts made of a bundle's sentences, and streaming them to a simulated player."""

from collections.abc import Sequence

from edgepack.bench.remote import Remote
from edgepack.bench.result import LongStream
from edgepack.errors import EdgepackError, ResourceError
from edgepack.report import Step

SENTENCES = 12


def text(sentences: Sequence[str], number: int) -> str:
    """A long text of some of the sentences; `number` chooses the first one."""
    start = number % len(sentences)
    return "".join([*sentences[start:], *sentences[:start]][:SENTENCES])


def streamed(
    worker: Remote, sentences: Sequence[str], count: int, step: Step
) -> tuple[LongStream, ...]:
    """Stream `count` long texts one after the other, each with another seed."""
    found = []
    for number in range(count):
        step(f"{worker.name}: stream {number + 1} of {count} of a long text")
        try:
            heard = LongStream(**worker.ask("play", text(sentences, number), number))
        except ResourceError:
            raise
        except EdgepackError as error:
            heard = LongStream(
                first_audio_seconds=0.0, audio_seconds=0.0, waits=0, waited_seconds=0.0,
                fault=str(error),
            )  # fmt: skip
        found.append(heard)
    return tuple(found)
