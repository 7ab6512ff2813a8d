"""Bundles in engines as they are installed, without a line of edgepack: `make test-interop`.

What such an engine is given and has to answer goes through files: a script of `stock` runs the
calls of one network, each an `.npz` of inputs, and writes what came out beside them.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from edgepack.bundle import Bundle
from edgepack.verification.selftest import Call

STOCK = Path(__file__).parent / "stock"
SECONDS = 120

Answers = list[dict[str, np.ndarray]]


def answers(script: str, bundle: Bundle, stage: str, runtime: str, calls: list[Call]) -> Answers:
    """Outputs of the calls of a network, from a script that knows its file and its caches."""
    file = bundle.path(bundle.manifest.stages[stage].variants[runtime].files[0])
    states = [[s.input, s.output, s.shape] for s in bundle.manifest.stages[stage].states]
    folder = bundle.folder.parent / f"{runtime}-{stage}"
    folder.mkdir()
    for number, call in enumerate(calls):
        np.savez(folder / f"{number}.in.npz", **call.feeds)
    command = [sys.executable, "-I", STOCK / script, file, folder, json.dumps(states)]
    ran = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "edgepack: []\n"  # of all that the process had imported
    return [dict(np.load(folder / f"{number}.out.npz")) for number in range(len(calls))]
