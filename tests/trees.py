"""File systems of machines that are not here."""

from collections.abc import Mapping
from pathlib import Path


def grow(root: Path, files: Mapping[str, object]) -> Path:
    """Files with these texts below a root; folders come by themselves."""
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", "utf-8")
    return root


def cpus(count: int, **each: object) -> dict[str, object]:
    """`count` CPUs that are online; `each` is a file of every CPU, a function of its number."""
    base = "sys/devices/system/cpu"
    files: dict[str, object] = {f"{base}/online": f"0-{count - 1}" if count > 1 else "0"}
    for name, value in each.items():
        for number in range(count):
            found = value(number) if callable(value) else value
            if found is not None:
                files[f"{base}/cpu{number}/{name.replace('__', '/')}"] = found
    return files
