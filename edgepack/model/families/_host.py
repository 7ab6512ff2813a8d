"""Parts of the host record that the families read from a configuration in the same way."""

from typing import Literal, NamedTuple

from edgepack.bundle.host import Sampling
from edgepack.errors import UsageError
from edgepack.model.checkpoint.config import Config
from edgepack.model.families import _values
from edgepack.runtime.strategies.prompt import log_mel

_MIX = (5, 15)  # of configurations that do not say it: text tokens, then speech tokens


class EulerSettings(NamedTuple):
    """How the flow decoder's ODE is solved: the schedule of its times, the weight of guidance."""

    schedule: Literal["cosine", "linear"]
    guidance: float


def sampling(llm: Config) -> Sampling:
    """Settings of repetition-aware sampling, from the language model's section."""
    section = llm.section("sampling")
    return Sampling(
        top_p=section.get("top_p", float),
        top_k=section.positive("top_k"),
        window=section.positive("win_size"),
        repetition=section.get("tau_r", float),
    )


def mix(llm: Config) -> tuple[int, int]:
    """How many text tokens and then speech tokens take turns while text arrives."""
    found = _values.numbers(llm, "mix_ratio") if "mix_ratio" in llm.values else _MIX
    if len(found) != 2:
        raise UsageError(f"{llm.where}.mix_ratio is {list(found)}, expected two numbers")
    return found[0], found[1]


def solver(flow: Config) -> EulerSettings:
    """The solver, from the flow decoder's section; the original knows no other than Euler's."""
    section = flow.section("decoder").section("cfm_params").section("content")
    section.expect(solver="euler")
    # ConditionalCFM.forward takes equal steps for every name but this one.
    schedule: Literal["cosine", "linear"] = (
        "cosine" if section.get("t_scheduler", str) == "cosine" else "linear"
    )
    return EulerSettings(schedule, section.get("inference_cfg_rate", float))


def prompt(config: Config, rate: int, read_at: int) -> log_mel.Record:
    """The mel spectrogram of prompts, at `rate` Hz, of recordings that are read at `read_at` Hz.

    It goes up to half the rate unless `fmax` says less.
    """
    features = config.section("feat_extractor")
    unbounded = features.values.get("fmax") is None
    return log_mel.Record(
        rate=rate,
        read_at=read_at,
        fft=features.positive("n_fft"),
        hop=features.positive("hop_size"),
        window=features.positive("win_size"),
        mels=features.positive("num_mels"),
        low=features.get("fmin", float),
        high=rate / 2 if unbounded else features.get("fmax", float),
    )
