"""A tokenizer with only some of its tokens, and new ids without gaps."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepack.builder.trim.vocabulary import Units, token_bytes
from edgepack.errors import UnsupportedError

_NEUTRAL_STEPS = {"ByteLevel", "Sequence"}  # post-processors that name no token ids


@dataclass(frozen=True)
class Trimmed:
    """The tokenizer as JSON, and the old id of each new one (int64, ascending)."""

    tokenizer: str
    rows: np.ndarray


def trim(original: str, units: Units, ids: Collection[int] = ()) -> Trimmed:
    """Keep the tokens that `units` can contain, single bytes, added tokens, and `ids`.

    Tokens keep their order, and so do merges. Raises UnsupportedError unless the tokenizer is
    byte-level BPE, the only kind whose tokens are bytes.
    """
    tree = json.loads(original)
    model = tree["model"]
    _expect_byte_level(tree)
    added = {token["id"]: token for token in tree["added_tokens"]}
    wanted = set(ids)
    kept: list[tuple[int, str]] = []
    for token, number in model["vocab"].items():
        try:
            data = token_bytes(token) if number not in added else b""
        except KeyError:
            raise UnsupportedError(f"token {token!r} is not made of bytes") from None
        if len(data) <= 1 or number in wanted or units.contain(data):
            kept.append((number, token))
    tokens = {token for _, token in kept}
    model["merges"] = [
        pair for pair in map(_pair, model["merges"]) if {*pair, "".join(pair)} <= tokens
    ]
    rows = sorted({number for number, _ in kept} | set(added))
    new = {old: number for number, old in enumerate(rows)}
    model["vocab"] = {token: new[number] for number, token in sorted(kept)}
    for old, entry in added.items():
        entry["id"] = new[old]
    text = json.dumps(tree, ensure_ascii=False, separators=(",", ":"))
    return Trimmed(text, np.array(rows, np.int64))


def _pair(merge: Any) -> list[str]:
    """A merge as two tokens; older files write them in one string."""
    return merge.split(" ") if isinstance(merge, str) else merge


def _expect_byte_level(tree: dict[str, Any]) -> None:
    steps = _kinds(tree["pre_tokenizer"])
    if tree["model"]["type"] != "BPE" or "ByteLevel" not in steps:
        raise UnsupportedError("only byte-level BPE tokenizers can be trimmed to a language")
    if tree["model"]["unk_token"] or tree["model"]["continuing_subword_prefix"]:
        raise UnsupportedError("a tokenizer with an unknown token or prefixes cannot be trimmed")
    strange = _kinds(tree["post_processor"]) - _NEUTRAL_STEPS
    if strange:
        raise UnsupportedError(f"a tokenizer with a {strange.pop()} step cannot be trimmed")


def _kinds(step: dict[str, Any] | None) -> set[str]:
    """The types of a step and of those inside it."""
    if not step:
        return set()
    inner = step.get("pretokenizers", []) + step.get("processors", [])
    return {step["type"]}.union(*map(_kinds, inner))
