"""The Qwen2 language model of CosyVoice2 and 3: its folder, its dimensions, its text tokens.

Source: cosyvoice/llm/llm.py (`Qwen2Encoder`) and cosyvoice/tokenizer/tokenizer.py.
"""

import numpy as np

from edgepack.graph.weights import Parameter, Weights
from edgepack.model.checkpoint.folder import Checkpoint
from edgepack.model.families import _values
from edgepack.model.networks.speech_lm import SpeechLMDims

FOLDER = "CosyVoice-BlankEN"
_CONFIG = f"{FOLDER}/config.json"
_NAMES = ("vocab.json", "merges.txt", "tokenizer_config.json", "tokenizer.json")
FILES = [_CONFIG, *(f"{FOLDER}/{name}" for name in _NAMES)]
HEAD = "llm.model.lm_head.weight"  # tied to the text table and never used
END_OF_PROMPT = "<|endofprompt|>"
# Tokens that both families add to Qwen2's own, in order.
SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endofprompt|>",
    "[breath]",
    "<strong>",
    "</strong>",
    "[noise]",
    "[laughter]",
    "[cough]",
    "[clucking]",
    "[accent]",
    "[quick_breath]",
    "<laughter>",
    "</laughter>",
    "[hissing]",
    "[sigh]",
    "[vocalized-noise]",
    "[lipsmack]",
    "[mn]",
]


def dims(checkpoint: Checkpoint, logits: int, *, biased: bool = True) -> SpeechLMDims:
    """Dimensions of the decoder; `logits` are its ids, which `biased` says have a bias."""
    qwen = checkpoint.json(_CONFIG)
    qwen.expect(hidden_act="silu", use_sliding_window=False, rope_scaling=None)
    hidden, heads = qwen.positive("hidden_size"), qwen.positive("num_attention_heads")
    return SpeechLMDims(
        hidden=hidden,
        intermediate=qwen.positive("intermediate_size"),
        layers=qwen.positive("num_hidden_layers"),
        heads=heads,
        kv_heads=_values.divisor(qwen, "num_key_value_heads", heads),
        head_width=qwen.positive("head_dim", hidden // heads),
        rope_theta=qwen.get("rope_theta", float),
        epsilon=qwen.get("rms_norm_eps", float),
        logits=logits,
        biased=biased,
    )


def text_rows(checkpoint: Checkpoint) -> int:
    """How many rows the text table has."""
    return checkpoint.json(_CONFIG).positive("vocab_size")


def text_table(checkpoint: Checkpoint, backbone: Weights, rows: np.ndarray | None) -> Parameter:
    """The text table, or some of its rows in the order that is given."""
    hidden = checkpoint.json(_CONFIG).positive("hidden_size")
    text = (backbone / "embed_tokens").get("weight", text_rows(checkpoint), hidden)
    if rows is None:
        return text
    return text.map((len(rows), hidden), lambda table: table[rows])
