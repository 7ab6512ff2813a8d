"""Quality gates: how closely a bundle follows the fp32 networks on its exam.

Metrics and starting values: llama.cpp's KL-divergence statistics for the language model, log
spectral distance for mels, SI-SDR (Le Roux et al., 2019) and PESQ (ITU-T P.862.2) for audio,
MCD with dynamic time warping for free speech.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgepack.manifest import Calibrated, Limit, Manifest
from edgepack.runtime.loading import Loaded
from edgepack.runtime.solver import euler
from edgepack.verification import quality
from edgepack.verification.exam import Exam, again, condition, follow, vocode

Values = Mapping[str, float]

_TIE = 0.105  # nats: a choice that fp32 finds nearly as good as its own
_CLIPPED = 0.999
SOLVER_ERROR = "solver_error"  # dB, see `verification.trajectories`
_HUGE = 1e300  # JSON has no infinity


def language_model(loaded: Loaded, exam: Exam) -> Values:
    """Agreement of next tokens, and divergence, on the fp32 networks' own tokens.

    `lm_top1` is the share of equal choices, `lm_agreement` counts as equal what fp32 gives at
    least 90 % of the probability of its own choice. `lm_kld` is KL(fp32 ‖ this), mean in nats.
    """
    same: list[float] = []
    near: list[float] = []
    divergence: list[float] = []
    for question in exam:
        found = follow(loaded, question.spoken)
        choice = found.argmax(1)
        same += (question.ids[:, 0] == choice).tolist()
        good = question.best >= question.best[:, :1] - _TIE
        near += (good & (question.ids == choice[:, None])).any(1).tolist()
        wanted, given = question.every.astype(np.float32), found[question.at]
        divergence += (np.exp(wanted) * (wanted - given)).sum(1).tolist()
    return {
        "lm_top1": float(np.mean(same)),
        "lm_agreement": float(np.mean(near)),
        "lm_kld": float(np.mean(divergence)),
    }


def flow(loaded: Loaded, exam: Exam) -> Values:
    """Mel error at equal tokens, noise and solver: `mel_l1` in nepers, `mel_lsd` in dB."""
    errors, distances = [], []
    for question in exam:
        spoken = question.spoken
        given = spoken.tokens.tolist(), condition(spoken.voice)
        mel = loaded.flow.mel(*given, solver=euler(loaded.flow.settings))
        errors.append(float(np.abs(mel - spoken.mel).mean()))
        distances.append(quality.log_spectral_distance(mel[0], spoken.mel[0]))
    return {"mel_l1": float(np.mean(errors)), "mel_lsd": float(np.mean(distances))}


def vocoder(loaded: Loaded, exam: Exam) -> Values:
    """Audio error on equal mels: `si_sdr` in dB, and `pesq` if the pesq package is installed."""
    ratios, scores = [], []
    rate = loaded.bundle.manifest.sample_rate
    for number, question in enumerate(exam):
        audio = vocode(loaded, question.spoken.mel, number)
        ratios.append(quality.si_sdr(audio, question.spoken.audio))
        score = quality.pesq(audio, question.spoken.audio, rate)
        scores += [] if score is None else [score]
    found = {"si_sdr": min(ratios)}
    return found | {"pesq": min(scores)} if scores else found


def speech(loaded: Loaded, exam: Exam) -> Values:
    """Free speech with the same random numbers, all sentences together.

    `duration_ratio` to fp32, `mcd_dtw` in dB, `clipped` share of samples, `silent` and `broken`
    (not finite) sentences.
    """
    rate = loaded.bundle.manifest.sample_rate
    lengths = [0, 0]
    distances: list[float] = []
    clipped: list[float] = []
    silent = broken = 0
    for number, question in enumerate(exam):
        wanted, found = question.spoken.audio, again(loaded, exam, number).audio
        lengths[0] += len(found)
        lengths[1] += len(wanted)
        if not np.isfinite(found).all():
            broken += 1
            continue
        loudest = float(np.abs(found).max(initial=0.0))
        silent += loudest < 0.05 * float(np.abs(wanted).max(initial=0.0))
        clipped.append(float((np.abs(found) > _CLIPPED).mean()) if len(found) else 0.0)
        distances.append(quality.warped_distortion(found, wanted, rate))
    return {
        "duration_ratio": lengths[0] / lengths[1],
        "mcd_dtw": float(np.mean(distances)) if distances else math.inf,
        "clipped": max(clipped, default=0.0),
        "silent": float(silent),
        "broken": float(broken),
    }


Part = Callable[[Loaded, Exam], Values]

# Which measurement a network is judged by.
OF_STAGE: Mapping[str, Part] = {
    "text_embedding": language_model,
    "speech_embedding": language_model,
    "speech_lm": language_model,
    "flow_encoder": flow,
    "flow_time": flow,
    "flow_estimator": flow,
    "hift_source": vocoder,
    "hift": vocoder,
}
ALL: Sequence[Part] = (language_model, flow, vocoder, speech)


def examine(loaded: Loaded, exam: Exam) -> dict[str, float]:
    """Every metric of a loaded bundle, to three digits."""
    return {metric: rounded(v) for part in ALL for metric, v in part(loaded, exam).items()}


def failures(values: Values, limits: Mapping[str, Limit]) -> list[str]:
    """Metrics that are not within their limits, each in words; NaN is within none."""
    failed = []
    for metric, value in values.items():
        limit = limits.get(metric, Limit())
        low = -math.inf if limit.low is None else limit.low
        high = math.inf if limit.high is None else limit.high
        if metric in limits and not low <= value <= high:
            failed.append(f"{metric} is {value:.3g}, {_words(limit)}")
    return failed


def limits_of(manifest: Manifest, runtime: str) -> dict[str, Limit]:
    """Limits of a bundle's exam in one runtime, that of its solver among them."""
    limits = dict(manifest.quality.limits) if manifest.quality else {}
    if solver := manifest.solvers.get(runtime):
        limits[SOLVER_ERROR] = solver_limit(solver)
    return limits


def solver_limit(solver: Calibrated) -> Limit:
    """How far a solver may be from exact trajectories, in dB."""
    return Limit(high=solver.limit)


def _words(limit: Limit) -> str:
    least = None if limit.low is None else f"at least {limit.low:g}"
    most = None if limit.high is None else f"at most {limit.high:g}"
    return " and ".join(filter(None, [least, most])) + " is asked for"


def rounded(value: float) -> float:
    """Three significant digits; what is not finite becomes the largest number of its sign."""
    return float(f"{value:.3g}") if math.isfinite(value) else math.copysign(_HUGE, value)
