"""`lm.npz`: text encoder, speaker row, language model, sampling."""

from collections.abc import Sequence
from typing import cast

import numpy as np

from edgepack.runtime.stages.decode import Context
from edgepack.runtime.stages.sampling import greedy, inverse_cdf, repetition_aware
from edgepack.runtime.strategies.language_model.speaker_then_text import SpeakerThenText
from edgepack.verification.reference import NETWORK, BundleUnderTest, Vectors
from edgepack.verification.selftest import relative_error

_TOP = 8
_LONGEST = 4  # speech tokens a text token of the greedy run


def check(v: Vectors, subject: BundleUnderTest) -> None:
    """Compare every array of the file."""
    decoder = cast(SpeakerThenText, subject.loaded.decoder)
    text = subject.text_ids(v.ids("text_ids"))
    speaker = v["embedding"]
    prompt_text = subject.text_ids(v.ids("prompt_text_ids"))
    prefix = Context(prompt_text, v.ids("prompt_speech_token"), speaker)
    v.compare("text_encoded", decoder.encode_text([*prefix.text, *text]))
    v.compare("spk", decoder.embed_speaker(speaker)[0])
    block = decoder.prefix(text, prefix)
    v.compare("lm_input", block)
    _prefill(v, subject, block)
    _forced(v, decoder, block)
    if "greedy_tokens" in v:
        _greedy(v, decoder, text, prefix)
    if "ras_rep_tokens" in v:
        _sampled(v, decoder, text, prefix)


def _prefill(v: Vectors, subject: BundleUnderTest, block: np.ndarray) -> None:
    session = subject.loaded.decoder.language_model
    session.reset()
    v.compare("prefill_logits_last", session.run({"embeddings": block})["logits"])
    caches = session.caches()
    layers = sum(name.startswith("key_") for name in caches)
    both = [
        np.concatenate([caches[f"key_{i}"][0], caches[f"value_{i}"][0]], -1) for i in range(layers)
    ]
    v.compare("prefill_att_cache", np.stack(both))
    if "prefill_hidden" in v:
        hidden = subject.reveal("speech_lm", {"embeddings": block}, ["hidden"])
        v.inner("prefill_hidden", hidden.get("hidden"))


def _forced(v: Vectors, decoder: SpeakerThenText, block: np.ndarray) -> None:
    """Logits after each of some given tokens."""
    decoder.language_model.reset()
    decoder.language_model.run({"embeddings": block})
    steps = [
        decoder.language_model.run({"embeddings": decoder.embed_speech([token])})["logits"][0]
        for token in v.ids("tf_tokens")
    ]
    v.compare("tf_logits", np.stack(steps))


def _greedy(v: Vectors, decoder: SpeakerThenText, text: Sequence[int], prefix: Context) -> None:
    seen: list[np.ndarray] = []

    def watching(log_probabilities: np.ndarray, history: Sequence[int]) -> int:
        seen.append(log_probabilities.copy())
        return greedy(log_probabilities, history)

    tokens = list(decoder.generate(text, watching, prefix, _LONGEST * len(text)))
    v.compare("greedy_tokens", np.array(tokens), 0.0)
    largest = np.stack([np.sort(scores)[: -_TOP - 1 : -1] for scores in seen])
    v.compare("greedy_top8_logp", largest)
    if "greedy_top8_id" in v and len(seen) == len(v.arrays["greedy_top8_id"]):
        # Ties may swap ids: the values at the recorded ids are compared.
        at = v.arrays["greedy_top8_id"]
        own = np.stack([scores[ids] for scores, ids in zip(seen, at, strict=True)])
        v.judge("greedy_top8_id", relative_error(own, v.arrays["greedy_top8_logp"]), NETWORK)
    else:
        v.judge("greedy_top8_id", float("inf"), NETWORK)


def _sampled(
    v: Vectors,
    decoder: SpeakerThenText,
    text: Sequence[int],
    prefix: Context,
) -> None:
    """Sampling with recorded uniform numbers; the likeliest id counts as just having come."""
    uniforms = iter(v["ras_rep_u"].tolist())
    draw = inverse_cdf(lambda: next(uniforms, 0.0))
    counts: list[int] = []
    draws: list[int] = []

    def counted(weights: np.ndarray) -> int:
        counts.append(weights.size)
        draws[-1] += 1
        return draw(weights)

    inner = repetition_aware(decoder.settings.sampling, counted)

    def sample(log_probabilities: np.ndarray, history: Sequence[int]) -> int:
        draws.append(0)
        return inner(log_probabilities, [*history, int(log_probabilities.argmax())])

    steps = len(v.arrays["ras_rep_draws_per_step"])
    tokens = list(decoder.generate(text, sample, prefix, steps))
    v.compare("ras_rep_tokens", np.array(tokens), 0.0)
    v.compare("ras_rep_u_n", np.array(counts), 0.0)
    v.compare("ras_rep_draws_per_step", np.array(draws), 0.0)
