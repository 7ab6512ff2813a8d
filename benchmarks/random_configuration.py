"""Sizes of a random checkpoint, and its configuration files in the released layout."""

from dataclasses import dataclass, field

from random_enrolment import MELS, SPEAKER


@dataclass(frozen=True)
class Size:
    """Every dimension of a CosyVoice2 checkpoint; the defaults are CosyVoice2-0.5B's."""

    text_rows: int = 151936
    speech: int = 6561
    hidden: int = 896
    intermediate: int = 4864
    layers: int = 24
    heads: int = 14
    kv_heads: int = 2
    encoder: int = 512
    encoder_heads: int = 8
    encoder_ff: int = 2048
    encoder_blocks: int = 6
    chunk: int = 25
    channels: int = 256
    estimator_heads: int = 8
    head_width: int = 64
    blocks: int = 4
    mid_blocks: int = 12
    base: int = 512
    condition: int = 512
    harmonics: int = 8
    rates: list[int] = field(default_factory=lambda: [8, 5, 3])
    kernels: list[int] = field(default_factory=lambda: [16, 11, 7])
    fft: int = 16
    hop: int = 4
    res_kernels: list[int] = field(default_factory=lambda: [3, 7, 11])
    source_kernels: list[int] = field(default_factory=lambda: [7, 7, 11])
    dilations: list[int] = field(default_factory=lambda: [1, 3, 5])


def cosyvoice2(s: Size) -> str:
    """The text of cosyvoice2.yaml."""
    repeated = [s.dilations] * len(s.res_kernels)
    source = [s.dilations] * len(s.source_kernels)
    return f"""\
__set_seed1: !apply:random.seed [1986]
__set_seed2: !apply:numpy.random.seed [1986]
__set_seed3: !apply:torch.manual_seed [1986]
__set_seed4: !apply:torch.cuda.manual_seed_all [1986]
sample_rate: 24000
llm_input_size: {s.hidden}
llm_output_size: {s.hidden}
spk_embed_dim: {SPEAKER}
qwen_pretrain_path: ''
token_frame_rate: 25
token_mel_ratio: 2
chunk_size: {s.chunk}
num_decoding_left_chunks: -1
llm: !new:cosyvoice.llm.llm.Qwen2LM
  llm_input_size: !ref <llm_input_size>
  llm_output_size: !ref <llm_output_size>
  speech_token_size: {s.speech}
  length_normalized_loss: True
  lsm_weight: 0
  mix_ratio: [5, 15]
  llm: !new:cosyvoice.llm.llm.Qwen2Encoder
    pretrain_path: !ref <qwen_pretrain_path>
  sampling: !name:cosyvoice.utils.common.ras_sampling
    top_p: 0.8
    top_k: 25
    win_size: 10
    tau_r: 0.1
flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithXvec
  input_size: {s.encoder}
  output_size: {MELS}
  spk_embed_dim: !ref <spk_embed_dim>
  output_type: 'mel'
  vocab_size: {s.speech}
  input_frame_rate: !ref <token_frame_rate>
  only_mask_loss: True
  token_mel_ratio: !ref <token_mel_ratio>
  pre_lookahead_len: 3
  encoder: !new:cosyvoice.transformer.upsample_encoder.UpsampleConformerEncoder
    output_size: {s.encoder}
    attention_heads: {s.encoder_heads}
    linear_units: {s.encoder_ff}
    num_blocks: {s.encoder_blocks}
    dropout_rate: 0.1
    positional_dropout_rate: 0.1
    attention_dropout_rate: 0.1
    normalize_before: True
    input_layer: 'linear'
    pos_enc_layer_type: 'rel_pos_espnet'
    selfattention_layer_type: 'rel_selfattn'
    input_size: {s.encoder}
    use_cnn_module: False
    macaron_style: False
    static_chunk_size: !ref <chunk_size>
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
    estimator: !new:cosyvoice.flow.decoder.CausalConditionalDecoder
      in_channels: {4 * MELS}
      out_channels: {MELS}
      channels: [{s.channels}]
      dropout: 0.0
      attention_head_dim: {s.head_width}
      n_blocks: {s.blocks}
      num_mid_blocks: {s.mid_blocks}
      num_heads: {s.estimator_heads}
      act_fn: 'gelu'
      static_chunk_size: !ref <chunk_size> * <token_mel_ratio>
      num_decoding_left_chunks: !ref <num_decoding_left_chunks>
hift: !new:cosyvoice.hifigan.generator.HiFTGenerator
  in_channels: {MELS}
  base_channels: {s.base}
  nb_harmonics: {s.harmonics}
  sampling_rate: !ref <sample_rate>
  nsf_alpha: 0.1
  nsf_sigma: 0.003
  nsf_voiced_threshold: 10
  upsample_rates: {s.rates}
  upsample_kernel_sizes: {s.kernels}
  istft_params:
    n_fft: {s.fft}
    hop_len: {s.hop}
  resblock_kernel_sizes: {s.res_kernels}
  resblock_dilation_sizes: {repeated}
  source_resblock_kernel_sizes: {s.source_kernels}
  source_resblock_dilation_sizes: {source}
  lrelu_slope: 0.1
  audio_limit: 0.99
  f0_predictor: !new:cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor
    num_class: 1
    in_channels: {MELS}
    cond_channels: {s.condition}
get_tokenizer: !name:cosyvoice.tokenizer.tokenizer.get_qwen_tokenizer
  token_path: !ref <qwen_pretrain_path>
  skip_special_tokens: True
allowed_special: 'all'
feat_extractor: !name:matcha.utils.audio.mel_spectrogram
  n_fft: 1920
  num_mels: {MELS}
  sampling_rate: !ref <sample_rate>
  hop_size: 480
  win_size: 1920
  fmin: 0
  fmax: 8000
  center: False
"""


def qwen2(s: Size) -> dict[str, object]:
    """The contents of CosyVoice-BlankEN/config.json."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_act": "silu",
        "hidden_size": s.hidden,
        "intermediate_size": s.intermediate,
        "max_position_embeddings": 32768,
        "model_type": "qwen2",
        "num_attention_heads": s.heads,
        "num_hidden_layers": s.layers,
        "num_key_value_heads": s.kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "vocab_size": s.text_rows,
    }
