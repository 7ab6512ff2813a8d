"""Writes a checkpoint of random weights in exactly the released layout, torch-free.

    python benchmarks/random_checkpoint.py OUT            # CosyVoice2-0.5B: about 2.6 GB on disk
    python benchmarks/random_checkpoint.py OUT --family cosyvoice3        # 0.5B: about 3.5 GB
    python benchmarks/random_checkpoint.py OUT --family cosyvoice         # 300M-SFT: about 1.8 GB
    python benchmarks/random_checkpoint.py OUT --size tiny --tokenizer DIR

Except for CosyVoice 1, whose tokenizer is no part of its checkpoints, the tokenizer (vocab.json,
merges.txt, tokenizer_config.json) is copied from `--tokenizer`, by default Qwen2's for full and the
demo voice's for tiny.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

import random_cosyvoice1
import random_cosyvoice2
import random_cosyvoice3

FAMILIES = {
    "cosyvoice": random_cosyvoice1,
    "cosyvoice2": random_cosyvoice2,
    "cosyvoice3": random_cosyvoice3,
}


def main() -> None:
    """Read the command line and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--family", choices=FAMILIES, default="cosyvoice2")
    parser.add_argument("--size", choices=["full", "tiny"], default="full")
    parser.add_argument("--tokenizer", type=Path, default=None)
    options = parser.parse_args()
    full, blank = options.size == "full", random_cosyvoice2.DEMO / "CosyVoice-BlankEN"
    family = FAMILIES[options.family]
    size = family.FULL if full else family.TINY
    if family is random_cosyvoice1:
        if options.tokenizer:
            parser.error("--tokenizer: checkpoints of CosyVoice 1 have none")
        family.write(options.folder, size)
    else:
        tokenizer = options.tokenizer or (random_cosyvoice2.QWEN2 if full else blank)
        family.write(options.folder, size, tokenizer)
    total = sum(f.stat().st_size for f in options.folder.rglob("*") if f.is_file())
    print(f"{options.folder}: {total / 1e9:.2f} GB, {asdict(size)}")


if __name__ == "__main__":
    main()
