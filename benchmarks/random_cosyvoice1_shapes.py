"""Tensors of CosyVoice 1's networks in any size."""

from dataclasses import dataclass

from random_weights import Shapes, conv, linear, norm

from edgepack.model.networks.conformer import ConformerDims
from edgepack.model.networks.flow_unet import FlowUNetDims
from edgepack.model.networks.regulated_flow_encoder import RegulatedFlowEncoderDims
from edgepack.model.networks.text_encoder import TextEncoderDims
from edgepack.model.networks.transformer_lm import TransformerLMDims


@dataclass(frozen=True)
class LMSize:
    """Dimensions of a language model with its tables and encoders."""

    text: TextEncoderDims
    model: TransformerLMDims
    speaker: int


@dataclass(frozen=True)
class FlowSize:
    """Dimensions of a flow decoder, with those that only its tensors tell."""

    encoder: RegulatedFlowEncoderDims
    unet: FlowUNetDims
    channels: int
    levels: int
    blocks: int  # transformer blocks of a level
    mid_blocks: int


def lm_shapes(size: LMSize) -> Shapes:
    """Tensors of an llm.pt but its tables."""
    text, of = size.text, size.model
    shapes = _encoder("text_encoder", text.embedded, text.conformer, ("norm_mha", "norm_ff"))
    shapes |= linear("text_encoder_affine_layer", text.output, text.conformer.hidden)
    decoder = ConformerDims(of.hidden, of.heads, of.feed_forward, of.layers)
    shapes |= _encoder("llm", of.inputs, decoder, ("norm1", "norm2"))
    shapes |= linear("llm_decoder", of.logits, of.hidden)
    return shapes | linear("spk_embed_affine_layer", of.inputs, size.speaker)


def _encoder(name: str, inputs: int, of: ConformerDims, norms: tuple[str, str]) -> Shapes:
    width = of.hidden
    shapes = linear(f"{name}.embed.out.0", width, inputs) | norm(f"{name}.embed.out.1", width)
    for i in range(of.layers):
        block = f"{name}.encoders.{i}"
        for bias in ("u", "v"):
            shapes[f"{block}.self_attn.pos_bias_{bias}"] = (of.heads, width // of.heads)
        for part in ("q", "k", "v", "out"):
            shapes |= linear(f"{block}.self_attn.linear_{part}", width, width)
        shapes[f"{block}.self_attn.linear_pos.weight"] = (width, width)
        shapes |= linear(f"{block}.feed_forward.w_1", of.feed_forward, width)
        shapes |= linear(f"{block}.feed_forward.w_2", width, of.feed_forward)
        for part in norms:
            shapes |= norm(f"{block}.{part}", width)
    return shapes | norm(f"{name}.after_norm", width)


def flow_shapes(size: FlowSize) -> Shapes:
    """Tensors of a flow.pt."""
    of, mels = size.encoder, size.encoder.mels
    shapes: Shapes = {"input_embedding.weight": (of.vocabulary, of.embedded)}
    shapes |= linear("spk_embed_affine_layer", mels, of.speaker)
    shapes |= _encoder("encoder", of.embedded, of.conformer, ("norm_mha", "norm_ff"))
    shapes |= linear("encoder_proj", mels, of.conformer.hidden)
    for i in range(of.convolutions):
        shapes |= conv(f"length_regulator.model.{3 * i}", mels, mels, 3)
        shapes |= norm(f"length_regulator.model.{3 * i + 1}", mels)
    shapes |= conv(f"length_regulator.model.{3 * of.convolutions}", mels, mels, 1)

    width, e, times = size.channels, "decoder.estimator", 4 * size.channels
    shapes |= linear(f"{e}.time_mlp.linear_1", times, 4 * mels)
    shapes |= linear(f"{e}.time_mlp.linear_2", times, times)
    for i in range(size.levels):
        last = i == size.levels - 1
        down, up = f"{e}.down_blocks.{i}", f"{e}.up_blocks.{i}"
        shapes |= _level(size, down, width if i else 4 * mels) | _level(size, up, 2 * width)
        shapes |= conv(f"{down}.2" if last else f"{down}.2.conv", width, width, 3)
        shapes |= conv(f"{up}.2" if last else f"{up}.2.conv", width, width, 3 if last else 4)
    for i in range(size.mid_blocks):
        shapes |= _level(size, f"{e}.mid_blocks.{i}", width)
    shapes |= conv(f"{e}.final_block.block.0", width, width, 3)
    shapes |= norm(f"{e}.final_block.block.1", width)
    return shapes | conv(f"{e}.final_proj", mels, width, 1)


def _level(size: FlowSize, name: str, inputs: int) -> Shapes:
    width, inner = size.channels, size.unet.heads * size.unet.head_width
    shapes = linear(f"{name}.0.mlp.1", width, 4 * width)
    shapes |= conv(f"{name}.0.res_conv", width, inputs, 1)
    for block, taken in (("block1", inputs), ("block2", width)):
        shapes |= conv(f"{name}.0.{block}.block.0", width, taken, 3)
        shapes |= norm(f"{name}.0.{block}.block.1", width)
    for i in range(size.blocks):
        block = f"{name}.1.{i}"
        for part in ("q", "k", "v"):
            shapes[f"{block}.attn1.to_{part}.weight"] = (inner, width)
        shapes |= linear(f"{block}.attn1.to_out.0", width, inner)
        shapes |= norm(f"{block}.norm1", width) | norm(f"{block}.norm3", width)
        shapes |= linear(f"{block}.ff.net.0.proj", 4 * width, width)
        shapes |= linear(f"{block}.ff.net.2", width, 4 * width)
    return shapes
