"""Quality gates: how closely a bundle follows the fp32 networks on its evaluation.

Metrics and starting values: llama.cpp's KL-divergence statistics for the language model, log
spectral distance for mels, SI-SDR (Le Roux et al., 2019) and PESQ (ITU-T P.862.2) for audio,
MCD with dynamic time warping for free speech. Every metric has a confidence interval, and it is
the worse end of it that has to be within the limit.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import msgspec
import numpy as np

from edgepack.bundle.manifest import Manifest
from edgepack.bundle.metrics import Limit, Limits, Measure, Metric, Values
from edgepack.bundle.stages import Judged, Use
from edgepack.runtime.loading import Loaded
from edgepack.runtime.stages.solver import euler
from edgepack.verification import intervals, quality
from edgepack.verification.evaluation import Evaluation, Question, again
from edgepack.verification.intervals import Groups
from edgepack.verification.speaking import SpokenSentence, condition, follow, vocode

_TIE = 0.105  # nats: a choice that fp32 finds nearly as good as its own
_CLIPPED = 0.999
_INTEGERS = ("int8", "int4")
_WIDER = 1.8  # times: 95 % become 99.95 % of a normal distribution
_FEWEST = 2  # questions before a network by itself is decided on
SOLVER_ERROR = "solver_error"  # dB, see `verification.trajectories`

K = TypeVar("K", bound=str)  # a metric, or SOLVER_ERROR
Answers = Mapping[Metric, Sequence[float]]  # observations of one question

_SUMMARIES: Mapping[Metric, Callable[[Groups], Measure]] = {
    "lm_top1": intervals.share,
    "lm_agreement": intervals.share,
    "lm_kld": intervals.mean,
    "mel_l1": intervals.mean,
    "mel_lsd": intervals.mean,
    "si_sdr": intervals.smallest,
    "pesq": intervals.smallest,
    "duration_ratio": intervals.ratio,
    "mcd_dtw": intervals.mean,
    "clipped": intervals.largest,
    "silent": intervals.total,
    "broken": intervals.total,
    "stream_lsd": intervals.mean,
}


@dataclass(frozen=True)
class JudgedPart:
    """What the networks of a bundle that are `judged` alike are judged by together.

    None is for speech of the whole bundle. `answers` observes `metrics` on the questions of some
    numbers in turn; they have to be of those that are `asked`.
    """

    judged: Judged | None
    metrics: tuple[Metric, ...]
    answers: Callable[[Loaded, Evaluation, Sequence[int]], Iterator[Answers]]
    asked: Callable[[Question], bool]

    def questions(self, evaluation: Evaluation) -> list[int]:
        """Numbers of the questions that are asked."""
        return [n for n, question in enumerate(evaluation) if self.asked(question)]


def _language_model(
    loaded: Loaded, evaluation: Evaluation, numbers: Sequence[int]
) -> Iterator[Answers]:
    """Next tokens and divergence on the fp32 networks' own tokens.

    `lm_top1` is the share of equal choices, `lm_agreement` counts as equal what fp32 gives at
    least 90 % of the probability of its own choice. `lm_kld` is KL(fp32 ‖ this), mean in nats.
    """
    questions = [evaluation[number] for number in numbers]
    followed = follow(loaded, [question.spoken for question in questions])
    for question, found in zip(questions, followed, strict=True):
        choice = found.argmax(1)
        good = question.best >= question.best[:, :1] - _TIE
        near = (good & (question.ids == choice[:, None])).any(1)
        wanted, given = question.every.astype(np.float32), found[question.at]
        yield {
            "lm_top1": (question.ids[:, 0] == choice).astype(float).tolist(),
            "lm_agreement": near.astype(float).tolist(),
            "lm_kld": (np.exp(wanted) * (wanted - given)).sum(1).tolist(),
        }


def _flow(loaded: Loaded, evaluation: Evaluation, numbers: Sequence[int]) -> Iterator[Answers]:
    """Mel error at equal tokens, noise and solver: `mel_l1` in nepers, `mel_lsd` in dB."""
    for number in numbers:
        spoken = evaluation[number].spoken
        given = spoken.tokens.tolist(), condition(spoken.voice)
        mel = loaded.flow.mel(*given, solver=euler(loaded.flow.settings))
        yield {
            "mel_l1": [float(np.abs(mel - spoken.mel).mean())],
            "mel_lsd": [quality.log_spectral_distance(mel[0], spoken.mel[0])],
        }


def _vocoder(loaded: Loaded, evaluation: Evaluation, numbers: Sequence[int]) -> Iterator[Answers]:
    """Audio of equal mels: `si_sdr` in dB, and `pesq` if the pesq package is installed.

    Of both the worst sentence counts.
    """
    for number in numbers:
        spoken = evaluation[number].spoken
        audio = vocode(loaded, spoken.mel, number)
        score = quality.pesq(audio, spoken.audio, loaded.bundle.manifest.sample_rate)
        yield {
            "si_sdr": [quality.si_sdr(audio, spoken.audio)],
            "pesq": [] if score is None else [score],
        }


def _speech(loaded: Loaded, evaluation: Evaluation, numbers: Sequence[int]) -> Iterator[Answers]:
    """Free speech: `duration_ratio`, `mcd_dtw` in dB, the `clipped` share of samples.

    `silent` and `broken` count sentences. Those without audio are only decoded.
    """
    rate = loaded.bundle.manifest.sample_rate
    for number, spoken in zip(numbers, again(loaded, evaluation, numbers), strict=True):
        yield _heard(evaluation[number], spoken, rate)


def _heard(question: Question, spoken: SpokenSentence, rate: int) -> Answers:
    """What free speech is worth beside that of the fp32 networks."""
    lengths = [float(len(spoken.tokens)), float(len(question.spoken.tokens))]
    if not question.sounded:
        return {"duration_ratio": lengths}
    wanted, found = question.spoken.audio, spoken.audio
    if not np.isfinite(found).all():
        return {"duration_ratio": lengths, "broken": [1.0]}
    loudest = float(np.abs(found).max(initial=0.0))
    return {
        "duration_ratio": lengths,
        "mcd_dtw": [quality.warped_distortion(found, wanted, rate)],
        "clipped": [float((np.abs(found) > _CLIPPED).mean()) if len(found) else 0.0],
        "silent": [float(loudest < 0.05 * float(np.abs(wanted).max(initial=0.0)))],
        "broken": [0.0],
    }


def _streams(loaded: Loaded, evaluation: Evaluation, numbers: Sequence[int]) -> Iterator[Answers]:
    """`stream_lsd` in dB: the mel of the last chunk of a stream, by that with all before it.

    Nothing of bundles whose last chunk is whole, and of speech of a single chunk.
    """
    schedule = loaded.bundle.manifest.host.schedule
    if not schedule.continued_end or loaded.flow.continuing is None:
        return
    ends = [replace(loaded.stream, settings=schedule.ending(continued=c)) for c in (True, False)]
    for number in numbers:
        spoken = evaluation[number].spoken
        given = spoken.tokens.tolist(), condition(spoken.voice)
        found, wanted = ([c.mel for c in end.run(*given, None)] for end in ends)
        last = found[-1].shape[2]
        if len(found) > 1:
            there = wanted[-1][0][:, -last:]
            yield {"stream_lsd": [quality.log_spectral_distance(found[-1][0], there)]}


STREAMS = JudgedPart(None, ("stream_lsd",), _streams, lambda question: question.sounded)
PARTS: Sequence[JudgedPart] = (
    JudgedPart(
        "language_model",
        ("lm_top1", "lm_agreement", "lm_kld"),
        _language_model,
        lambda question: question.posed,
    ),
    JudgedPart("flow", ("mel_l1", "mel_lsd"), _flow, lambda question: question.sounded),
    JudgedPart("vocoder", ("si_sdr", "pesq"), _vocoder, lambda question: question.sounded),
    JudgedPart(
        None,
        ("duration_ratio", "mcd_dtw", "clipped", "silent", "broken"),
        _speech,
        lambda question: True,
    ),
)


def part_of(use: Use) -> JudgedPart:
    """What a network that is used so is judged by before its bundle is whole."""
    return next(part for part in PARTS if part.judged == use.judged)


def examine(loaded: Loaded, evaluation: Evaluation) -> Values:
    """Every metric of a loaded bundle that can be measured, over all questions."""
    values: Values = {}
    for part in (*PARTS, STREAMS):
        values |= _summarised(part.answers(loaded, evaluation, part.questions(evaluation)))
    return values


def judge(
    loaded: Loaded, evaluation: Evaluation, stage: str, limits: Limits, *, whole: bool = False
) -> tuple[Values, list[str]]:
    """Metrics of one network in a loaded bundle, and which limits it does not keep.

    Questions are asked until the answers decide by far, at least two of them; what is close to a
    limit is asked all, and so is everything for a `whole` judgement. `limits` are of the metrics
    of this network's part.
    """
    part = part_of(loaded.bundle.manifest.stages[stage].use)
    answers: list[Answers] = []
    values: Values = {}
    for answer in part.answers(loaded, evaluation, part.questions(evaluation)):
        answers.append(answer)
        values = _summarised(answers)
        if whole or len(answers) < _FEWEST:
            continue
        if not failures(_widened(values), limits) or _hopeless(_widened(values), limits):
            break
    return values, failures(values, limits)


def _widened(values: Values) -> Values:
    """The same with wider intervals: who looks again and again is more often wrong."""
    return {
        metric: msgspec.structs.replace(
            one,
            low=one.value - _WIDER * (one.value - one.low),
            high=one.value + _WIDER * (one.high - one.value),
        )
        for metric, one in values.items()
    }


def _summarised(answers: Iterable[Answers]) -> Values:
    groups: dict[Metric, list[Sequence[float]]] = defaultdict(list)
    for answer in answers:
        for metric, observed in answer.items():
            if len(observed):
                groups[metric].append(observed)
    return {metric: _SUMMARIES[metric](found) for metric, found in groups.items()}


def not_measured(values: Mapping[K, Measure]) -> tuple[Metric, ...]:
    """Metrics of an evaluation that have no value."""
    return tuple(metric for part in PARTS for metric in part.metrics if metric not in values)


def failures(values: Mapping[K, Measure], limits: Mapping[K, Limit]) -> list[str]:
    """Limits that are not kept, each in words.

    The worse end of a metric's interval has to keep it. One that was not measured does not, unless
    the limit is optional.
    """
    failed = []
    for metric, limit in limits.items():
        measure = values.get(metric)
        if measure is None:
            if not limit.optional:
                failed.append(f"{metric} was not measured, {_words(limit)}")
        elif not _keeps(measure.low, measure.high, limit):
            failed.append(f"{metric} is {in_words(measure)}, {_words(limit)}")
    return failed


def _hopeless(values: Values, limits: Limits) -> bool:
    """Whether even the better end of some interval breaks a limit."""
    return any(
        not _keeps(measure.high, measure.low, limits[metric])
        for metric, measure in values.items()
        if metric in limits
    )


def _keeps(least: float, most: float, limit: Limit) -> bool:
    """Whether a metric is within a limit, from what is held against its low and its high end."""
    low = -math.inf if limit.low is None else limit.low
    high = math.inf if limit.high is None else limit.high
    return least >= low and most <= high


def limits_of(manifest: Manifest, runtime: str) -> dict[str, Limit]:
    """Limits of a bundle's evaluation in one runtime, that of its solver among them."""
    limits = manifest.quality.limits.get(runtime, {}) if manifest.quality else {}
    found: dict[str, Limit] = dict(limits.items())
    if solver := manifest.solvers.get(runtime):
        found[SOLVER_ERROR] = Limit(high=solver.limit)
    return found


def unlimited(manifest: Manifest, runtime: str) -> list[str]:
    """Networks with integer weights that no limit holds in a runtime, each in words."""
    limits = manifest.quality.limits.get(runtime, {}) if manifest.quality else {}
    found = []
    for stage, record in manifest.stages.items():
        precision = record.variants[runtime].precision
        metrics = part_of(record.use).metrics if precision in _INTEGERS else ()
        if metrics and not any(m in limits and not limits[m].optional for m in metrics):
            found.append(f"{stage} at {precision} has no limit; build it again")
    return found


def solver_measure(decibel: float, utterances: int) -> Measure:
    """The error of a solver in dB as a metric; its limit is the error of another on the same."""
    return Measure(value=decibel, low=decibel, high=decibel, count=utterances)


def in_words(measure: Measure) -> str:
    """Such as "0.978 (0.961 to 0.988)"; without an interval the value alone."""
    if measure.low == measure.value == measure.high:
        return f"{measure.value:.3g}"
    return f"{measure.value:.3g} ({measure.low:.3g} to {measure.high:.3g})"


def _words(limit: Limit) -> str:
    least = None if limit.low is None else f"at least {limit.low:g}"
    most = None if limit.high is None else f"at most {limit.high:g}"
    return " and ".join(filter(None, [least, most])) + " is asked for"
