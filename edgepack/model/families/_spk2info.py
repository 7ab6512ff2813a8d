"""Speakers of a `spk2info.pt`, in the forms that tools write it: what is no voice is left out.

Source of the forms: cosyvoice/cli/cosyvoice.py and frontend.py (`frontend_sft`,
`add_zero_shot_spk`, whose entry is a prompt with `llm_embedding` and `flow_embedding`), and tables
of embeddings alone.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgepack.bundle import voices
from edgepack.bundle.voices import Prompt, Voice
from edgepack.model.checkpoint.config import Config
from edgepack.report import Step

_FILE = "spk2info.pt"
_SPEAKER = ("flow_embedding", "embedding", "llm_embedding")  # the flow decoder is given the first
_TEXT, _TOKENS, _MEL = "prompt_text", "flow_prompt_speech_token", "prompt_speech_feat"
_LONGEST = 80  # characters of a name in a message


def read(tree: object, flow: Config, text_rows: int, warn: Step) -> dict[str, Voice]:
    """Voices of a table, by names that they can have in a bundle; `warn` is told what changed.

    `flow` is the configuration of the flow decoder, `text_rows` the number of text ids.
    """
    if not isinstance(tree, dict):
        warn(f"{_FILE}: holds no table of speakers; none of it is taken")
        return {}
    found: dict[str, Voice] = {}
    for key, entry in tree.items():
        own = str(key)
        shown = f"{_FILE}: speaker {own[:_LONGEST]!r}"
        name = voices.safe_name(own)
        if name in found:
            warn(f"{shown} is there twice; the first is taken")
            continue
        try:
            voice, lacking = _voice(entry, flow, text_rows)
        except ValueError as error:
            warn(f"{shown} {error}; left out, save it again")
            continue
        if lacking:
            warn(f"{shown} has a prompt without {lacking!r}; taken without its prompt")
        if name != own:
            warn(f"{shown} is called {name!r} in the bundle; --voice takes either name")
        found[name] = voice
    return found


def _voice(entry: Any, flow: Config, text_rows: int) -> tuple[Voice, str]:
    """A voice, and the part that its prompt lacks; raises ValueError for what is no voice."""
    parts = entry if isinstance(entry, dict) else {"embedding": entry}
    key = next((key for key in _SPEAKER if key in parts), "")
    if not key:
        raise ValueError(f"has no {' and no '.join(map(repr, _SPEAKER))}")
    speaker = _numbers(parts, key).reshape(-1)
    width = flow.positive("spk_embed_dim")
    if speaker.shape != (width,) or not np.isfinite(speaker).all():
        raise ValueError(f"has no {width} finite numbers in {key!r}")
    prompt = [key for key in (_TEXT, _TOKENS, _MEL) if key in parts]
    lacking = next((key for key in (_TEXT, _TOKENS, _MEL) if key not in parts), "")
    if lacking:
        return Voice(speaker), lacking if prompt else ""
    return Voice(speaker, _prompt(parts, flow, text_rows)), ""


def _prompt(parts: Mapping[str, Any], flow: Config, text_rows: int) -> Prompt:
    """A prompt; raises ValueError if its parts do not fit the networks.

    Where a token has a number of frames, mel and tokens of one recording may differ by the
    rest of a token, and what is longer is cut, as the original does (`frontend_zero_shot`).
    """
    text = _ids(parts, _TEXT, text_rows)
    tokens = _ids(parts, _TOKENS, flow.positive("vocab_size"))
    mel, mels = _numbers(parts, _MEL), flow.positive("output_size")
    if mel.ndim < 2 or mel.shape[-1] != mels or mel.size != mel.shape[-2] * mels:
        raise ValueError(f"has no frames of {mels} numbers in {_MEL!r}")
    mel = mel.reshape(-1, mels)
    if not np.isfinite(mel).all():
        raise ValueError(f"has numbers in {_MEL!r} that are not finite")
    if "token_mel_ratio" not in flow.values:  # frames are no multiple of tokens
        if not len(mel):
            raise ValueError("has an empty prompt")
        return Prompt(text, tokens, mel)
    ratio = flow.positive("token_mel_ratio")
    if abs(len(mel) - ratio * tokens.size) > ratio:
        raise ValueError(f"has {len(mel)} frames in {_MEL!r} for {tokens.size} speech tokens")
    count = min(len(mel) // ratio, tokens.size)
    if not count:
        raise ValueError("has an empty prompt")
    return Prompt(text, tokens[:count], mel[: ratio * count])


def _ids(parts: Mapping[str, Any], key: str, count: int) -> np.ndarray:
    """Ids [n] below `count`; whole numbers that were saved as floats are ids too."""
    values = parts[key]
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf":
        raise ValueError(f"has no ids in {key!r}")
    flat = values.reshape(-1)
    known = np.isfinite(flat) & (flat >= 0) & (flat < count) & (flat % 1 == 0)
    if not flat.size or not known.all():
        raise ValueError(f"has numbers in {key!r} that are no ids below {count}")
    return flat.astype(np.int64)


def _numbers(parts: Mapping[str, Any], key: str) -> np.ndarray:
    """An array of floats; a list of numbers is one too."""
    values = parts[key]
    if isinstance(values, list | tuple) and all(type(n) in (int, float) for n in values):
        values = np.array(values, np.float64)
    # bfloat16 is of no kind of numpy's own
    if not isinstance(values, np.ndarray) or not (
        values.dtype.kind == "f" or values.dtype.name == "bfloat16"
    ):
        raise ValueError(f"has no array of numbers in {key!r}")
    with np.errstate(over="ignore"):  # an infinity is refused
        return values.astype(np.float32)
