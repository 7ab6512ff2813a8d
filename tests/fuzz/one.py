"""One reader under Atheris: `python -m fuzz.one READER FOLDER [libFuzzer options] [FILE ...]`.

The file that is read is in FOLDER, which whoever starts this removes: libFuzzer ends the process.
What fails: an exception that is none of edgepack's, a message of more than a line, 5 s of processor
time, memory of 1 GiB more than before the first input even if a reader caught that, a crash. The
input is written to what `-artifact_prefix` says.
"""

import os
import random
import resource
import sys
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["edgepack"]):
    import edgepack.errors
    from fuzz.readers import CORPUS, READERS, Read, Reader

SECONDS = 5
BYTES = 1 << 30
_LONGEST_MESSAGE = 2000


class LimitError(Exception):
    """A limit that no input may reach."""


def judged(read: Read, data: bytes) -> bool:
    """Whether a reader takes the input; raises what is not allowed."""
    start = time.process_time()
    taken = True
    try:
        read(data)
    except edgepack.errors.EdgepackError as error:
        taken = False
        if "\n" in str(error) or len(str(error)) > _LONGEST_MESSAGE:
            raise LimitError(f"a message of more than a line: {error}") from error
        if starved(error):
            raise LimitError(f"memory ran out: {error}") from error
    used = time.process_time() - start
    if used > SECONDS:
        raise LimitError(f"{used:.1f} s of processor time")
    return taken


def starved(error: BaseException | None) -> bool:
    """Whether memory ran out at any point on the way to an error."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def changed(reader: Reader, data: bytes, most: int, seed: int) -> bytes:
    """Another input: the document changed and put together again, or its bytes changed."""
    rng = random.Random(seed)
    found = b""
    if rng.randrange(3):
        try:
            found = reader.change(data, rng)
        except Exception:  # not a document any more
            found = b""
    if not found:
        found = atheris.Mutate(data, most)
    return found[:most]


def main(name: str, folder: str, *options: str) -> None:
    """Read the seeds, which have to be taken, then what becomes of them."""
    reader = READERS[name]
    with atheris.instrument_imports(include=["edgepack"]):
        read = reader.make(Path(folder))
        for seed in sorted((CORPUS / name).iterdir()):
            if not judged(read, seed.read_bytes()):
                raise LimitError(f"{seed}: not read; write the corpus again")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    atheris.Setup(
        [name, *options],
        lambda data: judged(read, data) and None,
        custom_mutator=lambda data, most, seed: changed(reader, data, most, seed),
    )
    atheris.Fuzz()


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    main(*sys.argv[1:])
