"""CosyVoice3 checkpoints of random weights, for `random_checkpoint.py --family cosyvoice3`."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import random_configuration
import random_cosyvoice2
import random_enrolment
import random_weights
import torch_zip_writer as writer
from random_configuration import Size
from random_cosyvoice2 import MELS, SPEAKER
from random_weights import Shapes, conv, linear, weight_norm
from safetensors.numpy import save_file

MARKS = 200  # ids after speech, which end it
LOOK_AHEAD, PITCH_AHEAD = 3, 3


@dataclass(frozen=True)
class Size3(Size):
    """Every dimension of a CosyVoice3 checkpoint; the defaults are those of the 0.5B release.

    Those of CosyVoice2's encoder and estimator are not used.
    """

    between: int = 1024
    width: int = 1024
    depth: int = 22
    transformer_heads: int = 16
    transformer_head: int = 64
    wider: int = 2
    groups: int = 16
    position_taps: int = 31
    sinusoids: int = 256
    ahead: int = 4


TINY = Size3(
    **asdict(random_cosyvoice2.TINY),
    between=28, width=36, depth=2, transformer_heads=3, transformer_head=14, wider=3, groups=4,
    position_taps=7, sinusoids=32, ahead=2,
)  # fmt: skip
TINY = replace(TINY, text_rows=6600)  # the tokens for sounds come after the demo voice's
FULL = Size3()


def llm_shapes(s: Size3) -> Shapes:
    """Tensors of llm.pt but the tied lm_head."""
    shapes = random_cosyvoice2.llm_shapes(s)
    del shapes["llm_embedding.weight"], shapes["llm_decoder.bias"]
    rows = (s.speech + MARKS, s.hidden)
    return shapes | {"llm_decoder.weight": rows, "speech_embedding.weight": rows}


def flow_shapes(s: Size3) -> Shapes:
    """Tensors of flow.pt."""
    shapes: Shapes = {"input_embedding.weight": (s.speech, MELS)}
    shapes |= linear("spk_embed_affine_layer", MELS, SPEAKER)
    shapes |= conv("pre_lookahead_layer.conv1", s.between, MELS, LOOK_AHEAD + 1)
    shapes |= conv("pre_lookahead_layer.conv2", MELS, s.between, 3)
    e, inner = "decoder.estimator", s.transformer_heads * s.transformer_head
    shapes |= linear(f"{e}.time_embed.time_mlp.0", s.width, s.sinusoids)
    shapes |= linear(f"{e}.time_embed.time_mlp.2", s.width, s.width)
    shapes |= linear(f"{e}.input_embed.proj", s.width, 4 * MELS)
    for name in ("conv1", "conv2"):
        position = f"{e}.input_embed.conv_pos_embed.{name}.0"
        shapes |= conv(position, s.width, s.width // s.groups, s.position_taps)
    shapes[f"{e}.rotary_embed.inv_freq"] = (s.transformer_head // 2,)
    for i in range(s.depth):
        p = f"{e}.transformer_blocks.{i}"
        shapes |= linear(f"{p}.attn_norm.linear", 6 * s.width, s.width)
        for part in ("q", "k", "v"):
            shapes |= linear(f"{p}.attn.to_{part}", inner, s.width)
        shapes |= linear(f"{p}.attn.to_out.0", s.width, inner)
        shapes |= linear(f"{p}.ff.ff.0.0", s.wider * s.width, s.width)
        shapes |= linear(f"{p}.ff.ff.2", s.width, s.wider * s.width)
    shapes |= linear(f"{e}.norm_out.linear", 2 * s.width, s.width)
    return shapes | linear(f"{e}.proj_out", MELS, s.width)


def hift_shapes(s: Size3) -> Shapes:
    """Tensors of hift.pt."""
    shapes = random_cosyvoice2.hift_shapes(s)
    shapes |= weight_norm("conv_pre", (s.base, MELS, s.ahead + 1), s.base)
    for i, taps in enumerate(s.kernels):
        wide, width = s.base >> i, s.base >> (i + 1)
        shapes |= weight_norm(f"ups.{i}", (width, wide, taps), width)
    first = "f0_predictor.condnet.0"
    return shapes | weight_norm(first, (s.condition, MELS, PITCH_AHEAD + 1), s.condition)


def values(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Random values as `random_weights.values` has them, where the networks are the same."""
    if name.endswith("rotary_embed.inv_freq"):
        return (10000.0 ** -(np.arange(shape[0]) / shape[0])).astype(np.float32)
    value = random_weights.values(name, shape, seed)
    if name.endswith("time_embed.time_mlp.0.weight"):
        value *= random_weights.smooth_in_time(shape[1])
    if name.endswith(("attn_norm.linear.weight", "norm_out.linear.weight")):
        value *= 0.2  # so that gates and scales are about one and less
    if name == "llm_decoder.weight":
        # Of the ids that end speech only the first is masked until it is long enough. The others
        # would end every utterance after a second; so they are among the unlikely ids.
        value[1 - MARKS :] = 0
    return value


def configuration(s: Size3) -> str:
    """The text of cosyvoice3.yaml."""
    text = random_configuration.cosyvoice2(s)
    start, end = text.index("flow: !new"), text.index("hift: !new")
    text = text[:start] + _flow(s) + text[end:]
    for old, new in (
        ("llm.Qwen2LM", "llm.CosyVoice3LM"),
        ("generator.HiFTGenerator", "generator.CausalHiFTGenerator"),
        ("f0_predictor.ConvRNNF0Predictor", "f0_predictor.CausalConvRNNF0Predictor"),
        ("  audio_limit: 0.99\n", f"  audio_limit: 0.99\n  conv_pre_look_right: {s.ahead}\n"),
        ("  skip_special_tokens: True\n", "  skip_special_tokens: True\n  version: cosyvoice3\n"),
        ("  fmax: 8000\n", "  fmax: null\n"),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def _flow(s: Size3) -> str:
    return f"""\
flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithDiT
  input_size: {MELS}
  output_size: {MELS}
  spk_embed_dim: !ref <spk_embed_dim>
  output_type: 'mel'
  vocab_size: {s.speech}
  input_frame_rate: !ref <token_frame_rate>
  only_mask_loss: True
  token_mel_ratio: !ref <token_mel_ratio>
  pre_lookahead_len: {LOOK_AHEAD}
  pre_lookahead_layer: !new:cosyvoice.transformer.upsample_encoder.PreLookaheadLayer
    in_channels: {MELS}
    channels: {s.between}
    pre_lookahead_len: {LOOK_AHEAD}
  decoder: !new:cosyvoice.flow.flow_matching.CausalConditionalCFM
    in_channels: 240
    n_spks: 1
    spk_emb_dim: {MELS}
    cfm_params: !new:omegaconf.DictConfig
      content:
        sigma_min: 1e-06
        solver: 'euler'
        t_scheduler: 'cosine'
        training_cfg_rate: 0.2
        inference_cfg_rate: 0.7
        reg_loss_type: 'l1'
    estimator: !new:cosyvoice.flow.DiT.dit.DiT
      dim: {s.width}
      depth: {s.depth}
      heads: {s.transformer_heads}
      dim_head: {s.transformer_head}
      ff_mult: {s.wider}
      mel_dim: {MELS}
      mu_dim: {MELS}
      spk_dim: {MELS}
      out_channels: {MELS}
      static_chunk_size: !ref <chunk_size> * <token_mel_ratio>
      num_decoding_left_chunks: !ref <num_decoding_left_chunks>
"""


def write(folder: Path, s: Size3, tokenizer: Path) -> None:
    """Write the whole checkpoint folder."""
    blank = random_cosyvoice2.text_files(folder, s, tokenizer)
    (folder / "cosyvoice3.yaml").write_text(configuration(s))
    save_file({"model.norm.weight": np.ones(s.hidden, np.float32)}, blank / "model.safetensors")

    llm = random_weights.state_dict(llm_shapes(s), values)
    llm["llm.model.lm_head.weight"] = llm["llm.model.model.embed_tokens.weight"]  # tied
    writer.save(folder / "llm.pt", llm)
    writer.save(folder / "flow.pt", random_weights.state_dict(flow_shapes(s), values))
    writer.save(folder / "hift.pt", random_weights.state_dict(hift_shapes(s), values))
    random_enrolment.speech_tokenizer(folder / "speech_tokenizer_v3.onnx", s.speech)
    random_enrolment.speaker_encoder(folder / "campplus.onnx")
    embedding = np.random.default_rng(5).standard_normal((1, SPEAKER), np.float32)
    writer.save(folder / "spk2info.pt", {"random": {"embedding": embedding}})
