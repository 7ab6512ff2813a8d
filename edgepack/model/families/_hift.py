"""Dimensions and weights of HiFT vocoders, causal or not."""

from collections.abc import Mapping

import numpy as np

from edgepack.errors import IntegrityError, UnsupportedError, UsageError
from edgepack.model.checkpoint.config import Config
from edgepack.model.checkpoint.folder import Checkpoint
from edgepack.model.families import _values
from edgepack.model.networks.hift_dims import HiFTDims

SAMPLEWISE = 22050  # Hz, of the vocoders whose phase runs on from sample to sample
_MAX_FRAME = 4096  # samples


def dims(config: Config) -> HiFTDims:
    """Dimensions of the vocoder, from the whole configuration of a checkpoint."""
    section = config.section("hift")
    if section.positive("sampling_rate") == SAMPLEWISE:
        raise UnsupportedError(f"{section.where}: 22.05 kHz vocoders are of CosyVoice 1")
    found = sizes(section)
    rate = found.sample_rate
    flow = config.section("flow")
    # The older name of the rate is the only one in configurations of before April 2025.
    older = config.values.get("token_frame_rate") is None
    rate_of_tokens = (
        flow.positive("input_frame_rate") if older else config.positive("token_frame_rate")
    )
    frames = rate_of_tokens * flow.positive("token_mel_ratio")
    if found.frame * frames != rate or found.frame % 2:
        raise UnsupportedError(
            f"{section.where}: {found.frame} samples a frame, but {rate} Hz and {frames} frames a "
            f"second need {rate / frames:g}, an even number"
        )
    return found


def sizes(section: Config) -> HiFTDims:
    """Dimensions of the vocoder, from its own section."""
    transform = section.section("istft_params")
    found = HiFTDims(
        mels=section.positive("in_channels"),
        base=section.positive("base_channels"),
        harmonics=section.positive("nb_harmonics"),
        sample_rate=section.positive("sampling_rate"),
        rates=_values.numbers(section, "upsample_rates"),
        kernels=_values.numbers(section, "upsample_kernel_sizes"),
        fft=transform.positive("n_fft"),
        hop=transform.positive("hop_len"),
        block_kernels=_values.numbers(section, "resblock_kernel_sizes"),
        source_kernels=_values.numbers(section, "source_resblock_kernel_sizes"),
        dilations=_values.lists(section, "resblock_dilation_sizes"),
        source_dilations=_values.lists(section, "source_resblock_dilation_sizes"),
        slope=section.get("lrelu_slope", float),
        limit=section.get("audio_limit", float),
        sine_amplitude=section.get("nsf_alpha", float),
        noise_deviation=section.get("nsf_sigma", float),
        threshold=section.get("nsf_voiced_threshold", float),
    )
    levels = {len(of) for of in (found.rates, found.kernels, found.source_kernels)}
    if levels != {len(found.source_dilations)} or len(found.dilations) != len(found.block_kernels):
        raise UsageError(f"{section.where}: its lists of levels or of blocks differ in length")
    if found.frame > _MAX_FRAME:
        raise IntegrityError(f"{section.where}: {found.frame} samples a frame; refused")
    return found


def tensors(checkpoint: Checkpoint) -> Mapping[str, np.ndarray]:
    """The state dict of the vocoder; a GAN training checkpoint keeps it under a prefix."""
    found = checkpoint.tensors("hift")
    return {name.replace("generator.", ""): value for name, value in found.items()}
