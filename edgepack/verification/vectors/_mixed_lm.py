"""`lm.npz`: the language model, sampling with recorded draws, streamed text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from edgepack.runtime.engines.session import Feeds
from edgepack.runtime.engines.watch import Watched
from edgepack.runtime.stages.decode import NOTHING, Context, SpeechDecoder
from edgepack.runtime.stages.sampling import (
    Sampler,
    greedy,
    inverse_cdf,
    log_softmax,
    repetition_aware,
)
from edgepack.runtime.strategies.language_model.text_then_speech import TextThenSpeech
from edgepack.verification.reference import NETWORK, BundleUnderTest, Vectors
from edgepack.verification.selftest import relative_error

_TOP = 8
_FORCED_END = 10  # in the last stage of streamed text, the tenth choice is the end


def check(v: Vectors, subject: BundleUnderTest, *, opened: bool = False) -> None:
    """Compare every array of the file; `opened` is whether prompts always have text."""
    decoder = subject.loaded.decoder
    text = subject.text_ids(v.ids("text_ids"))
    prompt_text = subject.text_ids(v.ids("prompt_text_ids"))
    frontend = subject.loaded.frontend
    context = frontend.context(Context(prompt_text, v.ids("prompt_speech_token")))
    alone = frontend.context(Context(prompt_text)) if opened else NOTHING
    block = decoder.prefix(text, context)
    v.compare("lm_input", block)
    v.compare("min_len", np.array(int(len(text) * decoder.settings.min_ratio)), 0.0)
    _prefill(v, subject, block)
    _forced(v, decoder, block)

    longest = int(v["max_len"])
    sampler = _Watching(greedy)
    tokens, _ = decoder.collect(decoder.generate(text, sampler, context, longest))
    v.compare("greedy_tokens", np.array(tokens), 0.0)
    sampler.compare(v, "greedy")

    for run in ("ras", "ras_noprompt", "ras_rep"):
        if f"{run}_tokens" in v:
            _sampled(v, decoder, run, text, alone if run == "ras_noprompt" else context)
    for run in ("bi", "bi_noprompt"):
        if f"{run}_tokens" in v:
            _streamed(v, subject, run)


def _prefill(v: Vectors, subject: BundleUnderTest, block: np.ndarray) -> None:
    session = subject.loaded.decoder.language_model
    session.reset()
    logits = session.run({"embeddings": block})["logits"]
    v.compare("prefill_logits_last", logits)
    v.compare("prefill_logp_last", log_softmax(logits[0])[None])
    caches = session.caches()
    for array, kind in (("prefill_k", "key"), ("prefill_v", "value")):
        ordered = [caches[f"{kind}_{i}"][0] for i in range(len(caches) // 2)]
        v.compare(array, np.stack(ordered))
    if "prefill_hidden" in v:
        hidden = subject.reveal("speech_lm", {"embeddings": block}, ["hidden"])
        v.inner("prefill_hidden", hidden.get("hidden"))


def _forced(v: Vectors, decoder: SpeechDecoder, block: np.ndarray) -> None:
    """Logits after each of some given tokens."""
    decoder.language_model.reset()
    decoder.language_model.run({"embeddings": block})
    steps = [
        decoder.language_model.run({"embeddings": decoder.embed_speech([token])})["logits"][0]
        for token in v.ids("tf_tokens")
    ]
    v.compare("tf_logits", np.stack(steps))


@dataclass
class _Watching:
    """A sampler that keeps what it was shown."""

    sampler: Sampler
    seen: list[np.ndarray] = field(default_factory=list)

    def __call__(self, log_probabilities: np.ndarray, history: Sequence[int]) -> int:
        self.seen.append(log_probabilities.copy())
        return self.sampler(log_probabilities, history)

    def compare(self, v: Vectors, run: str) -> None:
        """The eight largest values, and the values at the recorded ids: ties may swap ids."""
        values, ids = f"{run}_top8_logp", f"{run}_top8_id"
        if values not in v or ids not in v:
            return
        recorded, at = v.arrays[values], v.arrays[ids]
        if len(self.seen) != len(recorded):
            v.judge(values, float("inf"), NETWORK)
            v.judge(ids, float("inf"), NETWORK)
            return
        v.compare(values, np.stack([np.sort(row)[: -_TOP - 1 : -1] for row in self.seen]))
        own = np.stack([row[i] for row, i in zip(self.seen, at, strict=True)])
        v.judge(ids, relative_error(own, recorded), NETWORK)


def _sampled(
    v: Vectors, decoder: SpeechDecoder, run: str, text: Sequence[int], context: Context
) -> None:
    """Sampling with the recorded uniform numbers."""
    uniforms = iter(v[f"{run}_u"].tolist())
    steps = len(v[f"{run}_draws_per_step"])
    draw = inverse_cdf(lambda: next(uniforms))
    width = decoder.settings.sampling.top_k
    counts: list[int] = []
    chosen: list[int] = []
    draws: list[int] = []
    nuclei: list[np.ndarray] = []

    def recorded_draw(weights: np.ndarray) -> int:
        index = draw(weights)
        row = np.zeros(width, np.float32)
        if draws[-1] == 0:  # the second draw of a step is over the whole vocabulary
            row[: weights.size] = weights / weights.sum()
        nuclei.append(row)
        counts.append(weights.size)
        chosen.append(index)
        draws[-1] += 1
        return index

    inner = repetition_aware(decoder.settings.sampling, recorded_draw)

    def sample(log_probabilities: np.ndarray, history: Sequence[int]) -> int:
        draws.append(0)
        repeated = [int(log_probabilities.argmax())] if run == "ras_rep" else []
        return inner(log_probabilities, [*history, *repeated])

    sampler = _Watching(sample)
    v.compare(f"{run}_lm_input", decoder.prefix(text, context))
    try:
        tokens, _ = decoder.collect(decoder.generate(text, sampler, context, steps))
    except RuntimeError:  # more draws than were recorded: StopIteration inside a generator
        tokens = []
    v.compare(f"{run}_tokens", np.array(tokens), 0.0)
    v.compare(f"{run}_u_n", np.array(counts), 0.0)
    v.compare(f"{run}_u_idx", np.array(chosen), 0.0)
    v.compare(f"{run}_draws_per_step", np.array(draws), 0.0)
    sampler.compare(v, run)
    v.compare(f"{run}_nucleus_p", np.stack(nuclei))


def _streamed(v: Vectors, subject: BundleUnderTest, run: str) -> None:
    """Text in pieces, the most probable speech token each time."""
    decoder = cast(TextThenSpeech, subject.loaded.decoder)
    settings = decoder.settings
    ids, cuts = subject.text_ids(v.ids(f"{run}_text_ids")), v.ids(f"{run}_text_cuts")
    prompt_text = subject.text_ids(v.ids(f"{run}_prompt_text_ids"))
    prompt = v.ids(f"{run}_prompt_speech_token")
    context = subject.loaded.frontend.context(Context(prompt_text, prompt))
    lengths: list[int] = []
    logits: list[np.ndarray] = []
    shown: list[np.ndarray] = []

    def watch(stage: str, seconds: float, feeds: Feeds, outputs: dict[str, np.ndarray]) -> None:
        lengths.append(feeds["embeddings"].shape[1])
        logits[:] = [outputs["logits"][0]]

    endings = 0

    def sample(log_probabilities: np.ndarray, history: Sequence[int]) -> int:
        nonlocal endings
        may_end = bool(np.isfinite(log_probabilities[settings.end]))
        endings += may_end
        # The original's sampler is shown ids that cannot come, which the decoder leaves out.
        shown.append(log_softmax(logits[0]))
        if not may_end:
            shown[-1][settings.masked_before_min] = -np.inf
        if endings == _FORCED_END:
            return settings.end
        return int(log_probabilities[: settings.speech_tokens].argmax())

    def pieces() -> Iterator[list[int]]:
        start = 0
        for cut in cuts:
            yield ids[start:cut]
            start = cut

    watched = replace(decoder, language_model=Watched("speech_lm", decoder.language_model, [watch]))
    tokens = watched.generate_streaming(pieces(), sample, context)
    v.compare(f"{run}_tokens", np.array(list(tokens)), 0.0)
    v.compare(f"{run}_step_input_len", np.array(lengths), 0.0)
    _Watching(sample, shown).compare(v, run)
