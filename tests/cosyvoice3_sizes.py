"""Random weights of CosyVoice3's networks in any size."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edgepack.model.networks.flow_dit import FlowDiTDims
from edgepack.model.networks.flow_front import FlowFrontDims
from edgepack.model.networks.hift_dims import CausalHiFTDims, HiFTDims

Shapes = dict[str, tuple[int, ...]]
Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class FlowSize:
    """Dimensions of a flow decoder, with those that only its tensors tell."""

    front: FlowFrontDims
    transformer: FlowDiTDims
    groups: int
    taps: int  # of the convolutions that tell positions
    sinusoids: int
    feed_forward: int
    second_taps: int = 3  # of the look-ahead
    long_skip: bool = False


def linear(name: str, out: int, inputs: int) -> Shapes:
    """Tensors of a Linear."""
    return {f"{name}.weight": (out, inputs), f"{name}.bias": (out,)}


def conv(name: str, out: int, inputs: int, taps: int) -> Shapes:
    """Tensors of a convolution."""
    return {f"{name}.weight": (out, inputs, taps), f"{name}.bias": (out,)}


def normed(name: str, out: int, inputs: int, taps: int) -> Shapes:
    """Tensors of a weight-normalised convolution."""
    return {
        f"{name}.parametrizations.weight.original0": (out, 1, 1),
        f"{name}.parametrizations.weight.original1": (out, inputs, taps),
        f"{name}.bias": (out,),
    }


def flow_shapes(size: FlowSize) -> Shapes:
    """Tensors of a flow.pt."""
    front, of = size.front, size.transformer
    estimator, inner = "decoder.estimator", of.heads * of.head_width
    shapes: Shapes = {"input_embedding.weight": (front.vocabulary, front.mels)}
    shapes |= linear("spk_embed_affine_layer", front.mels, front.speaker)
    layer = "pre_lookahead_layer"
    shapes |= conv(f"{layer}.conv1", front.between, front.mels, front.look_ahead + 1)
    shapes |= conv(f"{layer}.conv2", front.mels, front.between, size.second_taps)
    shapes |= linear(f"{estimator}.time_embed.time_mlp.0", of.hidden, size.sinusoids)
    shapes |= linear(f"{estimator}.time_embed.time_mlp.2", of.hidden, of.hidden)
    shapes |= linear(f"{estimator}.input_embed.proj", of.hidden, 4 * of.mels)
    for name in ("conv1", "conv2"):
        position = f"{estimator}.input_embed.conv_pos_embed.{name}.0"
        shapes |= conv(position, of.hidden, of.hidden // size.groups, size.taps)
    shapes[f"{estimator}.rotary_embed.inv_freq"] = (of.head_width // 2,)
    for i in range(of.layers):
        block = f"{estimator}.transformer_blocks.{i}"
        shapes |= linear(f"{block}.attn_norm.linear", 6 * of.hidden, of.hidden)
        for part in ("q", "k", "v"):
            shapes |= linear(f"{block}.attn.to_{part}", inner, of.hidden)
        shapes |= linear(f"{block}.attn.to_out.0", of.hidden, inner)
        shapes |= linear(f"{block}.ff.ff.0.0", size.feed_forward, of.hidden)
        shapes |= linear(f"{block}.ff.ff.2", of.hidden, size.feed_forward)
    shapes |= linear(f"{estimator}.norm_out.linear", 2 * of.hidden, of.hidden)
    shapes |= linear(f"{estimator}.proj_out", of.mels, of.hidden)
    if size.long_skip:
        shapes[f"{estimator}.long_skip_connection.weight"] = (of.hidden, 2 * of.hidden)
    return shapes


def _pitch_shapes(mels: int, condition: int, first_taps: int) -> Shapes:
    shapes = normed("f0_predictor.condnet.0", condition, mels, first_taps)
    for number in (2, 4, 6, 8):
        shapes |= normed(f"f0_predictor.condnet.{number}", condition, condition, 3)
    return shapes | linear("f0_predictor.classifier", 1, condition)


def _residual_shapes(name: str, width: int, taps: int, dilations: tuple[int, ...]) -> Shapes:
    shapes: Shapes = {}
    for i in range(len(dilations)):
        for part in ("1", "2"):
            shapes |= normed(f"{name}.convs{part}.{i}", width, width, taps)
            shapes[f"{name}.activations{part}.{i}.alpha"] = (width,)
    return shapes


def hift_shapes(dims: HiFTDims, condition: int) -> Shapes:
    """Tensors of a hift.pt, whether it is causal or not."""
    causal = isinstance(dims, CausalHiFTDims)
    bins = dims.fft + 2
    first = dims.ahead + 1 if isinstance(dims, CausalHiFTDims) else 7
    shapes = linear("m_source.l_linear", 1, dims.harmonics + 1)
    shapes |= normed("conv_pre", dims.base, dims.mels, first)
    pitch = dims.pitch_ahead + 1 if isinstance(dims, CausalHiFTDims) else 3
    shapes |= _pitch_shapes(dims.mels, condition, pitch)
    width = dims.base
    for i, taps in enumerate(dims.kernels):
        inputs, width = width, width // 2
        if causal:
            shapes |= normed(f"ups.{i}", width, inputs, taps)
        else:
            shapes |= normed(f"ups.{i}", inputs, width, taps) | {f"ups.{i}.bias": (width,)}
        stride = int(np.prod(dims.rates[i + 1 :], dtype=int))
        shapes |= conv(f"source_downs.{i}", width, bins, 1 if stride == 1 else 2 * stride)
        name = f"source_resblocks.{i}"
        shapes |= _residual_shapes(name, width, dims.source_kernels[i], dims.source_dilations[i])
        blocks = zip(dims.block_kernels, dims.dilations, strict=True)
        for j, (block_taps, dilations) in enumerate(blocks):
            number = i * len(dims.block_kernels) + j
            shapes |= _residual_shapes(f"resblocks.{number}", width, block_taps, dilations)
    return shapes | normed("conv_post", bins, width, 7)


@dataclass
class Random:
    """Weights by shape; with a `gain` of 3 each keeps about a layer's scale."""

    seed: int
    gain: float = 3.0
    tensors: dict[str, np.ndarray] = field(default_factory=dict)

    def of(self, shapes: Shapes) -> Tensors:
        """Tensors of these shapes."""
        rng = np.random.default_rng(self.seed)
        for name, shape in shapes.items():
            value = rng.standard_normal(shape) * 0.3
            if name.endswith("alpha"):
                value = 1 + value
            elif name.endswith("original0"):
                value = 0.8 + value
            elif name.endswith("inv_freq"):
                value = 10000.0 ** -(np.arange(shape[0]) / shape[0])
            elif name == "f0_predictor.classifier.bias":
                value = value + 60
            elif name == "f0_predictor.classifier.weight":
                value = value * 200
            elif len(shape) > 1 and "embedding" not in name:
                value = value * self.gain / np.sqrt(np.prod(shape[1:]))
            self.tensors[name] = value.astype(np.float32)
        return self.tensors
