"""Bundles in engines as they are installed, without a line of edgepack: `make test-interop`.

What such an engine is given and has to answer goes through files: a script of `stock` runs the
calls of every network, each an `.npz` of inputs, and writes what came out beside them.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgepack.bundle.bundle import Bundle
from edgepack.verification.selftest import Calls

STOCK = Path(__file__).parent / "stock"
SECONDS = 300

Answers = Mapping[str, list[dict[str, np.ndarray]]]


def answers(script: str, bundle: Bundle, runtime: str, calls: Calls, folder: Path) -> Answers:
    """Outputs of the calls of networks, from a script that knows their files and their caches."""
    jobs = []
    for stage, recorded in calls.items():
        found = bundle.manifest.stages[stage]
        file = bundle.path(found.variants[runtime].files[0])
        (folder / stage).mkdir()
        for number, call in enumerate(recorded):
            feeds: dict[str, Any] = dict(call.feeds)
            np.savez(folder / stage / f"{number}.in.npz", **feeds)
        states = [[state.input, state.output, state.shape] for state in found.states]
        jobs.append({"model": str(file), "folder": str(folder / stage), "states": states})
    command = [sys.executable, "-I", str(STOCK / script)]
    ran = subprocess.run(
        command,
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "edgepack: []\n"  # of all that the process had imported
    return {
        stage: [dict(np.load(folder / stage / f"{n}.out.npz")) for n in range(len(recorded))]
        for stage, recorded in calls.items()
    }
