"""One reader under Atheris: `python -m fuzz.one READER FOLDER [libFuzzer options] [FILE ...]`.

The file that is read is in FOLDER, which whoever starts this removes: libFuzzer ends the process.
What fails is in `fuzz.judging`; memory is limited to 1 GiB more than before the first changed
input. The input is written to what `-artifact_prefix` says.
"""

import os
import random
import resource
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["edgepack"]):
    from fuzz.judging import BYTES, LimitError, judged
    from fuzz.readers import CORPUS, READERS, Reader


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
