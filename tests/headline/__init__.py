"""What people type first, as they type it: in processes of its own, with the default options."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SECONDS = 900


def edgepack(*arguments: object, cwd: Path) -> Any:
    """The JSON document of `edgepack ARGUMENTS… --json`, which has to succeed without a word."""
    command = [sys.executable, "-m", "edgepack", *map(str, arguments), "--json"]
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr[-3000:]}"
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)
