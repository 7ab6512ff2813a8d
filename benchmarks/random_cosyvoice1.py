"""CosyVoice 1 checkpoints of random weights, for `random_checkpoint.py --family cosyvoice`."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import random_configuration
import random_cosyvoice2
import random_enrolment
import random_weights
import torch_zip_writer as writer
from random_cosyvoice1_shapes import FlowSize, LMSize, flow_shapes, lm_shapes
from random_enrolment import MELS, SPEAKER

from edgepack.model.networks.conformer import ConformerDims
from edgepack.model.networks.flow_unet import FlowUNetDims
from edgepack.model.networks.regulated_flow_encoder import RegulatedFlowEncoderDims
from edgepack.model.networks.text_encoder import TextEncoderDims
from edgepack.model.networks.transformer_lm import TransformerLMDims

SPEAKERS = ["中文女", "中文男", "日语男", "粤语女", "英文女", "英文男", "韩语女"]  # of 300M-SFT
_GROUPS = 8
# Of the text encoder, the decoder and the flow encoder of CosyVoice-300M.
_TEXT = ConformerDims(1024, 16, 4096, 6)
_DECODER = ConformerDims(1024, 16, 4096, 14)
_FLOW = ConformerDims(512, 8, 2048, 6)


def _vocoder() -> random_configuration.Size:
    return random_configuration.Size(rates=[8, 8], kernels=[16, 16], source_kernels=[7, 11])


@dataclass(frozen=True)
class Size:
    """Every dimension of a CosyVoice 1 checkpoint; the defaults are CosyVoice-300M's.

    Of `vocoder`, only what belongs to the vocoder counts.
    """

    text_rows: int = 51866
    speech: int = 4096
    rate: int = 50  # speech tokens a second
    text: int = 512
    inputs: int = 1024
    text_encoder: ConformerDims = _TEXT
    decoder: ConformerDims = _DECODER
    embedded: int = 512
    encoder: ConformerDims = _FLOW
    convolutions: int = 4
    channels: int = 256
    levels: int = 2
    heads: int = 8
    head_width: int = 64
    blocks: int = 4
    mid_blocks: int = 12
    vocoder: random_configuration.Size = field(default_factory=_vocoder)

    @property
    def lm(self) -> LMSize:
        """Dimensions of the language model."""
        text = TextEncoderDims(self.text, self.inputs, 1, self.text_encoder)
        of = self.decoder
        model = TransformerLMDims(
            self.inputs, of.hidden, of.feed_forward, of.layers, of.heads, self.speech + 1
        )
        return LMSize(text, model, SPEAKER)

    @property
    def flow(self) -> FlowSize:
        """Dimensions of the flow decoder."""
        encoder = RegulatedFlowEncoderDims(
            self.speech, self.embedded, MELS, SPEAKER, self.convolutions, self.encoder
        )
        unet = FlowUNetDims(MELS, self.heads, self.head_width, _GROUPS)
        return FlowSize(encoder, unet, self.channels, self.levels, self.blocks, self.mid_blocks)


TINY = Size(
    text_rows=1400, speech=300, rate=25, text=20, inputs=28,
    text_encoder=ConformerDims(24, 3, 40, 2), decoder=ConformerDims(32, 2, 30, 3), embedded=18,
    encoder=ConformerDims(36, 6, 50, 2), convolutions=3, channels=16, levels=3, heads=3,
    head_width=6, blocks=1, mid_blocks=2,
    vocoder=random_configuration.Size(
        base=24, condition=20, harmonics=6, rates=[4, 8], kernels=[8, 16], fft=32, hop=8,
        res_kernels=[3, 5], source_kernels=[5, 7], dilations=[1, 2],
    ),
)  # fmt: skip
FULL = Size()


def write(folder: Path, s: Size) -> None:
    """Write the whole checkpoint folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cosyvoice.yaml").write_text(configuration(s), "utf-8")
    tables = {
        "text_embedding.weight": (s.text_rows, s.text),
        "llm_embedding.weight": (2, s.inputs),
        "speech_embedding.weight": (s.speech, s.inputs),
    }
    for part, shapes in (
        ("llm", tables | lm_shapes(s.lm)),
        ("flow", flow_shapes(s.flow)),
        ("hift", random_cosyvoice2.hift_shapes(s.vocoder)),
    ):
        writer.save(folder / f"{part}.pt", random_weights.state_dict(shapes))
    random_enrolment.speech_tokenizer(folder / "speech_tokenizer_v1.onnx", s.speech)
    random_enrolment.speaker_encoder(folder / "campplus.onnx")
    rng = np.random.default_rng(5)
    speakers = {
        name: {"embedding": rng.standard_normal((1, SPEAKER), np.float32)} for name in SPEAKERS
    }
    writer.save(folder / "spk2info.pt", speakers)


def configuration(s: Size) -> str:
    """The text of cosyvoice.yaml."""
    v, text, decoder, encoder = s.vocoder, s.text_encoder, s.decoder, s.encoder
    return f"""\
sample_rate: 22050
text_encoder_input_size: {s.text}
llm_input_size: {s.inputs}
llm_output_size: {decoder.hidden}
spk_embed_dim: {SPEAKER}
llm: !new:cosyvoice.llm.llm.TransformerLM
  text_encoder_input_size: !ref <text_encoder_input_size>
  llm_input_size: !ref <llm_input_size>
  llm_output_size: !ref <llm_output_size>
  text_token_size: {s.text_rows}
  speech_token_size: {s.speech}
  length_normalized_loss: True
  lsm_weight: 0
  spk_embed_dim: !ref <spk_embed_dim>
  text_encoder: !new:cosyvoice.transformer.encoder.ConformerEncoder
    input_size: !ref <text_encoder_input_size>
    output_size: {text.hidden}
    attention_heads: {text.heads}
    linear_units: {text.feed_forward}
    num_blocks: {text.layers}
    normalize_before: True
    input_layer: 'linear'
    pos_enc_layer_type: 'rel_pos_espnet'
    selfattention_layer_type: 'rel_selfattn'
    use_cnn_module: False
    macaron_style: False
    use_dynamic_chunk: False
    use_dynamic_left_chunk: False
    static_chunk_size: 1
  llm: !new:cosyvoice.transformer.encoder.TransformerEncoder
    input_size: !ref <llm_input_size>
    output_size: !ref <llm_output_size>
    attention_heads: {decoder.heads}
    linear_units: {decoder.feed_forward}
    num_blocks: {decoder.layers}
    input_layer: 'linear_legacy'
    pos_enc_layer_type: 'rel_pos_espnet'
    selfattention_layer_type: 'rel_selfattn'
    static_chunk_size: 1
  sampling: !name:cosyvoice.utils.common.ras_sampling
    top_p: 0.8
    top_k: 25
    win_size: 10
    tau_r: 0.1
flow: !new:cosyvoice.flow.flow.MaskedDiffWithXvec
  input_size: {s.embedded}
  output_size: {MELS}
  spk_embed_dim: !ref <spk_embed_dim>
  output_type: 'mel'
  vocab_size: {s.speech}
  input_frame_rate: {s.rate}
  only_mask_loss: True
  encoder: !new:cosyvoice.transformer.encoder.ConformerEncoder
    output_size: {encoder.hidden}
    attention_heads: {encoder.heads}
    linear_units: {encoder.feed_forward}
    num_blocks: {encoder.layers}
    normalize_before: True
    input_layer: 'linear'
    pos_enc_layer_type: 'rel_pos_espnet'
    selfattention_layer_type: 'rel_selfattn'
    input_size: {s.embedded}
    use_cnn_module: False
    macaron_style: False
  length_regulator: !new:cosyvoice.flow.length_regulator.InterpolateRegulator
    channels: {MELS}
    sampling_ratios: {[1] * s.convolutions}
  decoder: !new:cosyvoice.flow.flow_matching.ConditionalCFM
    in_channels: {3 * MELS}
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
    estimator: !new:cosyvoice.flow.decoder.ConditionalDecoder
      in_channels: {4 * MELS}
      out_channels: {MELS}
      channels: {[s.channels] * s.levels}
      dropout: 0.0
      attention_head_dim: {s.head_width}
      n_blocks: {s.blocks}
      num_mid_blocks: {s.mid_blocks}
      num_heads: {s.heads}
      act_fn: 'gelu'
hift: !new:cosyvoice.hifigan.generator.HiFTGenerator
  in_channels: {MELS}
  base_channels: {v.base}
  nb_harmonics: {v.harmonics}
  sampling_rate: !ref <sample_rate>
  nsf_alpha: 0.1
  nsf_sigma: 0.003
  nsf_voiced_threshold: 10
  upsample_rates: {v.rates}
  upsample_kernel_sizes: {v.kernels}
  istft_params:
    n_fft: {v.fft}
    hop_len: {v.hop}
  resblock_kernel_sizes: {v.res_kernels}
  resblock_dilation_sizes: {[v.dilations] * len(v.res_kernels)}
  source_resblock_kernel_sizes: {v.source_kernels}
  source_resblock_dilation_sizes: {[v.dilations] * len(v.source_kernels)}
  lrelu_slope: 0.1
  audio_limit: 0.99
  f0_predictor: !new:cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor
    num_class: 1
    in_channels: {MELS}
    cond_channels: {v.condition}
get_tokenizer: !name:whisper.tokenizer.get_tokenizer
  multilingual: True
  num_languages: 100
  language: 'en'
  task: 'transcribe'
allowed_special: 'all'
feat_extractor: !name:matcha.utils.audio.mel_spectrogram
  n_fft: 1024
  num_mels: {MELS}
  sampling_rate: !ref <sample_rate>
  hop_size: 256
  win_size: 1024
  fmin: 0
  fmax: 8000
  center: False
"""
