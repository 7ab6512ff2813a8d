"""Instruction sets of this machine that matter for speech, by the names that profiles use.

Only CPU flags are used, not model names, as a hypervisor may hide instructions of a model.
"""

import re
from pathlib import Path

_X86 = {
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx_vnni": "avx_vnni",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_tile": "amx",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
}
_ARM = {
    "asimd": "neon",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "asimdhp": "fp16",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
}


def read(root: Path = Path("/")) -> tuple[str, ...]:
    """Instruction sets, by the names that profiles use, that all CPUs have."""
    try:
        text = (root / "proc/cpuinfo").read_text("utf-8")
    except (OSError, UnicodeError):
        return ()
    lines = re.findall(r"^(flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    if not lines:
        return ()
    known = _X86 if lines[0][0] == "flags" else _ARM
    common = set.intersection(*(set(flags.split()) for _, flags in lines))
    return tuple(ours for theirs, ours in known.items() if theirs in common)


def model(root: Path = Path("/")) -> str:
    """What the machine calls its CPU, for people to read; empty if it does not say."""
    try:
        text = (root / "proc/cpuinfo").read_text("utf-8")
    except (OSError, UnicodeError):
        text = ""
    found = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""
