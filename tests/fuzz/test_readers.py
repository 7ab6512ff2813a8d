"""What `make fuzz` stands on: seeds that are read, changes that are some, limits that are held."""

import os
import random
import time
from pathlib import Path

import pytest

from edgepack.errors import IntegrityError
from edgepack.machine.cpu import tuned
from fuzz import judging
from fuzz.judging import LimitError, judged
from fuzz.readers import CORPUS, READERS

CHANGES = 20


@pytest.fixture(autouse=True)
def put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reader changes for itself, so that plans are of every machine."""
    monkeypatch.setattr(tuned, "fingerprint", tuned.fingerprint)


@pytest.mark.filterwarnings("error")  # which would be a second line
@pytest.mark.parametrize("name", [name for name, of in READERS.items() if not of.in_children])
def test_seeds_are_read_and_changed_ones_are_judged(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    read = reader.make(tmp_path)
    rng = random.Random(0)
    for seed in sorted((CORPUS / name).iterdir()):
        data = seed.read_bytes()
        assert judged(read, data), seed
        changed = {reader.change(data, rng) for _ in range(CHANGES)}
        assert len(changed) > CHANGES / 2
        for other in changed:
            judged(read, other)


def test_every_reader_has_seeds_and_every_seed_a_reader() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(READERS)
    assert all(any(path.iterdir()) for path in CORPUS.iterdir())


def test_what_is_not_allowed_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(data: bytes) -> None:
        try:
            raise MemoryError
        except MemoryError as error:
            raise IntegrityError("not readable") from error

    def foreign(data: bytes) -> None:
        raise KeyError("x")

    def slow(data: bytes) -> None:
        start = time.process_time()
        while time.process_time() - start < 0.02:
            os.getpid()

    with pytest.raises(LimitError, match="memory ran out"):
        judged(hungry, b"")
    with pytest.raises(KeyError):
        judged(foreign, b"")
    assert judged(slow, b"")
    monkeypatch.setattr(judging, "SECONDS", 0.01)
    with pytest.raises(LimitError, match="processor time"):
        judged(slow, b"")
