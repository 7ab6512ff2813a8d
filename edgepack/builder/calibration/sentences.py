"""What the language model is given for whole sentences, for recipes that ask for many rows of it.

Only the language model runs, for several sentences at once: thousands of rows take as long as the
few hundred that all networks together are recorded with.
"""

from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np

from edgepack.builder.calibration.recordings import recorded
from edgepack.builder.calibration.samples import Sample, write_call
from edgepack.builder.hub import REFEREE
from edgepack.report import Step
from edgepack.runtime.load_options import LoadOptions
from edgepack.runtime.loading import Loaded, load
from edgepack.verification.speaking import calls_of, decode

_ROWS, _LONGEST = 6000, 100  # rows in all, and speech tokens of one sentence
_KIND = "sentences"


def record_sentences(reference: Path, texts: Sequence[str], key: str, step: Step) -> Path:
    """Record the language model of the bundle `reference`; recordings of a key are used again.

    A call has all rows of a sentence, as the model may be given them at once: what comes before
    its speech tokens, then those that it chose itself. Voices take turns. Returns a folder as
    `observe` does.
    """

    def record(folder: Path) -> None:
        loaded = load(reference, REFEREE, options=LoadOptions(repacked=True))
        stage = loaded.bundle.manifest.stage_of("language_model")
        (folder / stage).mkdir()
        rows = 0
        for number, call in enumerate(_calls(loaded, texts)):
            write_call(folder, stage, number, call)
            rows += next(iter(call.values())).shape[1]
            step(f"decoding for calibration: {min(rows, _ROWS)} of {_ROWS} rows")
            if rows >= _ROWS:
                break

    return recorded(_KIND, key, record)


def _calls(loaded: Loaded, texts: Sequence[str]) -> Iterator[Sample]:
    for spoken in decode(loaded, cycle(texts), _LONGEST):
        parts = list(calls_of(loaded, spoken))
        yield {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
