"""Tokenizer and voices of a bundle without their libraries, for `examples/host_loop.py`."""

import json
import re
import sys
import unicodedata
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np


class Tokenizer:
    """Byte-level BPE of a Hugging Face `tokenizer.json`."""

    def __init__(self, path: Path) -> None:
        tree = json.loads(path.read_text("utf-8"))
        self.ids = tree["model"]["vocab"]
        self.ranks = {tuple(pair): rank for rank, pair in enumerate(tree["model"]["merges"])}
        self.added = {token["content"]: token["id"] for token in tree["added_tokens"]}
        longest = sorted(self.added, key=len, reverse=True)
        self.special = re.compile("(" + "|".join(map(re.escape, longest)) + ")")
        pattern = tree["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
        for kind in "LN":  # Python's regular expressions have no \p{…}
            name, ranges = f"\\p{{{kind}}}", _ranges(kind)
            pattern = pattern.replace(f"]?{name}+|", f"]?[{ranges}]+|").replace(
                f"|{name}|", f"|[{ranges}]|"
            )
            pattern = pattern.replace(name, ranges)
        self.words = re.compile(pattern)
        plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in plain]
        self.letters = dict(zip(plain + others, map(chr, [*plain, *range(256, 324)]), strict=True))

    def __call__(self, text: str) -> list[int]:
        found: list[int] = []
        for part in self.special.split(text):
            if part in self.added:
                found.append(self.added[part])
                continue
            for word in self.words.finditer(unicodedata.normalize("NFC", part)):
                found += self.merged([self.letters[byte] for byte in word[0].encode()])
        return found

    def merged(self, symbols: list[str]) -> list[int]:
        while len(symbols) > 1:
            ranks = [self.ranks.get(p, len(self.ranks)) for p in pairwise(symbols)]
            best = ranks.index(min(ranks))  # the first of those that were learned first
            if ranks[best] == len(self.ranks):
                break
            symbols[best : best + 2] = [symbols[best] + symbols[best + 1]]
        return [self.ids[symbol] for symbol in symbols]


def _ranges(kind: str) -> str:
    """All characters of a Unicode category, as the inside of brackets."""
    codes = [c for c in range(sys.maxunicode) if unicodedata.category(chr(c))[0] == kind]
    runs = (list(run) for _, run in groupby(enumerate(codes), lambda pair: pair[1] - pair[0]))
    return "".join(f"\\U{run[0][1]:08x}-\\U{run[-1][1]:08x}" for run in runs)


def safetensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    found = {}
    for name, entry in json.loads(data[8:start]).items():
        first, last = (start + offset for offset in entry["data_offsets"])
        kind = {"F32": np.float32, "I64": np.int64}[entry["dtype"]]
        found[name] = np.frombuffer(data[first:last], kind).reshape(entry["shape"])
    return found


def start_noise(seed: int, shape: tuple[int, int, int]) -> np.ndarray:
    """MT19937 words, 24 bits of each as a uniform number, Box-Muller over two rows of eight."""
    words = np.random.RandomState(seed).randint(0, 2**32, np.prod(shape), np.uint32)
    lanes = ((words & 0xFFFFFF).astype(np.float32) * np.float32(2.0**-24)).reshape(-1, 2, 8)
    radius = np.sqrt(np.float32(-2) * np.log(np.float32(1) - lanes[:, 0]))
    angle = np.float32(2 * np.pi) * lanes[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(shape)
