"""CosyVoice2: Qwen2 language model, upsampling conformer, causal U-Net, HiFT.

Source: FunAudioLLM/CosyVoice, `cosyvoice2.yaml` and cosyvoice/cli/model.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from edgepack.checkpoint import tokenizer
from edgepack.checkpoint.config import Config
from edgepack.checkpoint.folder import Checkpoint
from edgepack.errors import IntegrityError, UnsupportedError, UsageError
from edgepack.families import _spk2info
from edgepack.family import PARTS, TEXT_TABLE, HostSettings
from edgepack.graph.net import Graph
from edgepack.graph.weights import Weights, stack
from edgepack.manifest import Flow, LanguageModel, MelSpectrogram, Sampling, Stream, Vocoder
from edgepack.networks.flow_encoder import FlowEncoderDims, flow_encoder
from edgepack.networks.flow_unet import FlowUNetDims, flow_time, flow_unet
from edgepack.networks.hift import HiFTDims, hift, hift_source
from edgepack.networks.speech_lm import SpeechLMDims, embedding_table, speech_lm
from edgepack.report import Step, silent
from edgepack.voices import Voice

_QWEN = "CosyVoice-BlankEN"
_SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endofprompt|>",
    "[breath]",
    "<strong>",
    "</strong>",
    "[noise]",
    "[laughter]",
    "[cough]",
    "[clucking]",
    "[accent]",
    "[quick_breath]",
    "<laughter>",
    "</laughter>",
    "[hissing]",
    "[sigh]",
    "[vocalized-noise]",
    "[lipsmack]",
    "[mn]",
]
_END_OF_PROMPT = "<|endofprompt|>"
_EXTRA_IDS = 3  # end, an unused one, fill
_HEAD = "llm.model.lm_head.weight"  # tied to the text table and never used
_MAX_FRAME = 4096  # samples
_MAX_LIST = 16  # levels, blocks or dilations
_NOISE_FRAMES, _FLOW_STEPS = 15000, 10
_STREAM = Stream(first_hop=25, max_hop=100, growth=2, mel_overlap=8)


class _CosyVoice2:
    networks: ClassVar[Mapping[str, str]] = {
        "llm": "Qwen2LM",
        "flow": "CausalMaskedDiffWithXvec",
        "hift": "HiFTGenerator",
    }

    def graphs(
        self, checkpoint: Checkpoint, text_rows: np.ndarray | None = None
    ) -> Iterator[Graph]:
        yield from _language_model(checkpoint, text_rows)
        yield from _flow(checkpoint)
        yield from _vocoder(checkpoint)

    def host(self, checkpoint: Checkpoint) -> HostSettings:
        config = checkpoint.config
        llm, flow = config.section("llm"), config.section("flow")
        speech = llm.positive("speech_token_size")
        sampling = llm.section("sampling")
        mix = _numbers(llm, "mix_ratio") if "mix_ratio" in llm.values else (5, 15)
        if len(mix) != 2:
            raise UsageError(f"{llm.where}.mix_ratio is {list(mix)}, expected two numbers")
        solver = _solver(flow)
        dims = _hift_dims(config)
        features = config.section("feat_extractor")
        rate = config.positive("sample_rate")
        return HostSettings(
            sample_rate=rate,
            end_of_prompt=_END_OF_PROMPT,
            language_model=LanguageModel(
                speech_tokens=speech,
                start=speech + _EXTRA_IDS,
                task=speech + _EXTRA_IDS + 1,
                end=speech,
                fill=speech + 2,
                masked_before_min=speech,
                min_ratio=2.0,
                max_ratio=20.0,
                mix=(mix[0], mix[1]),
                sampling=Sampling(
                    top_p=sampling.get("top_p", float),
                    top_k=sampling.positive("top_k"),
                    window=sampling.positive("win_size"),
                    repetition=sampling.get("tau_r", float),
                ),
            ),
            flow=Flow(
                steps=_FLOW_STEPS,
                schedule="cosine" if solver.get("t_scheduler", str) == "cosine" else "linear",
                guidance=solver.get("inference_cfg_rate", float),
                look_ahead=flow.positive("pre_lookahead_len"),
                chunk=_chunk(flow),
                ratio=flow.positive("token_mel_ratio"),
                mels=flow.positive("output_size"),
                noise_seed=0,
                noise_frames=_NOISE_FRAMES,
            ),
            vocoder=Vocoder(frame=dims.frame, partials=dims.harmonics + 1, context=dims.context),
            stream=_STREAM,
            prompt_mel=MelSpectrogram(
                fft=features.positive("n_fft"),
                hop=features.positive("hop_size"),
                window=features.positive("win_size"),
                mels=features.positive("num_mels"),
                low=features.get("fmin", float),
                high=features.get("fmax", float),
            ),
        )

    def text_rows(self, checkpoint: Checkpoint) -> int:
        return checkpoint.json(f"{_QWEN}/config.json").positive("vocab_size")

    def tokenizer(self, checkpoint: Checkpoint) -> str:
        return tokenizer.build(checkpoint, _QWEN, _SPECIAL, self.text_rows(checkpoint))

    def voices(self, checkpoint: Checkpoint, warn: Step = silent) -> Mapping[str, Voice]:
        if not checkpoint.has("spk2info.pt"):
            return {}
        tree, flow = checkpoint.objects("spk2info.pt"), checkpoint.config.section("flow")
        return _spk2info.read(tree, flow, self.text_rows(checkpoint), warn)

    def enrolment(self, checkpoint: Checkpoint) -> Mapping[str, str]:
        files = {"speech_tokenizer": "speech_tokenizer_v2.onnx", "speaker_encoder": "campplus.onnx"}
        return files if all(checkpoint.has(f) for f in files.values()) else {}

    def sources(self, checkpoint: Checkpoint) -> Sequence[str]:
        parts = [checkpoint.container(part) for part in PARTS]
        names = [checkpoint.config_name, *parts, "spk2info.pt"]
        names += [f"{_QWEN}/{n}" for n in ("config.json", "vocab.json", "merges.txt")]
        names += [f"{_QWEN}/{n}" for n in ("tokenizer_config.json", "tokenizer.json")]
        names += self.enrolment(checkpoint).values()
        return [name for name in names if checkpoint.has(name)]


def _language_model(checkpoint: Checkpoint, text_rows: np.ndarray | None) -> Iterator[Graph]:
    config, qwen = checkpoint.config.section("llm"), checkpoint.json(f"{_QWEN}/config.json")
    qwen.expect(hidden_act="silu", use_sliding_window=False, rope_scaling=None)
    speech = config.positive("speech_token_size")
    hidden, heads = qwen.positive("hidden_size"), qwen.positive("num_attention_heads")
    dims = SpeechLMDims(
        hidden=hidden,
        intermediate=qwen.positive("intermediate_size"),
        layers=qwen.positive("num_hidden_layers"),
        heads=heads,
        kv_heads=_divisor(qwen, "num_key_value_heads", heads),
        head_width=qwen.positive("head_dim", hidden // heads),
        rope_theta=qwen.get("rope_theta", float),
        epsilon=qwen.get("rms_norm_eps", float),
        logits=speech + _EXTRA_IDS,
    )
    w = Weights.of(checkpoint.container("llm"), checkpoint.tensors("llm"))
    backbone = w / "llm" / "model" / "model"
    text = (backbone / "embed_tokens").get("weight", qwen.positive("vocab_size"), hidden)
    if text_rows is not None:
        text = text.map((len(text_rows), hidden), lambda table: table[text_rows])
    spoken = (w / "speech_embedding").get("weight", dims.logits, hidden)
    marks = (w / "llm_embedding").get("weight", 2, hidden)
    graphs = [
        speech_lm(backbone, w / "llm_decoder", dims),
        embedding_table(TEXT_TABLE, text),
        embedding_table("speech_embedding", stack(spoken.name, [spoken, marks], 0)),
    ]
    w.assert_all_read([_HEAD])
    yield from graphs


def _flow(checkpoint: Checkpoint) -> Iterator[Graph]:
    config = checkpoint.config.section("flow")
    encoder = config.section("encoder")
    encoder.expect(
        input_layer="linear",
        pos_enc_layer_type="rel_pos_espnet",
        selfattention_layer_type="rel_selfattn",
        normalize_before=True,
        use_cnn_module=False,
        macaron_style=False,
        activation_type="swish",
    )
    estimator = config.section("decoder").section("estimator")
    estimator.expect(act_fn="gelu")
    mels = config.positive("output_size")
    w = Weights.of(checkpoint.container("flow"), checkpoint.tensors("flow"))
    unet = FlowUNetDims(
        mels=mels,
        heads=estimator.positive("num_heads"),
        head_width=estimator.positive("attention_head_dim"),
    )
    graphs = [
        flow_encoder(
            w,
            FlowEncoderDims(
                vocabulary=config.positive("vocab_size"),
                embedded=config.positive("input_size"),
                hidden=encoder.positive("output_size"),
                heads=_divisor(encoder, "attention_heads", encoder.positive("output_size")),
                feed_forward=encoder.positive("linear_units"),
                mels=mels,
                speaker=config.positive("spk_embed_dim"),
                look_ahead=config.positive("pre_lookahead_len"),
                ratio=config.positive("token_mel_ratio"),
            ),
        ),
        flow_time(w / "decoder" / "estimator", unet),
        flow_unet(w / "decoder" / "estimator", unet),
    ]
    w.assert_all_read([])
    yield from graphs


def _chunk(flow: Config) -> int:
    """Tokens that the flow decoder takes at once while streaming.

    Configurations of before April 2025 do not say it: the code that came with them had two seconds
    (CosyVoice2Model.__init__ in cosyvoice/cli/model.py).
    """
    encoder = flow.section("encoder")
    if "static_chunk_size" in encoder.values:
        return encoder.positive("static_chunk_size")
    return 2 * flow.positive("input_frame_rate")


def _solver(flow: Config) -> Config:
    parameters = flow.section("decoder").section("cfm_params").section("content")
    parameters.expect(solver="euler")
    return parameters


def _vocoder(checkpoint: Checkpoint) -> Iterator[Graph]:
    dims = _hift_dims(checkpoint.config)
    tensors = checkpoint.tensors("hift")
    # A GAN training checkpoint keeps the generator under a prefix.
    plain = {name.replace("generator.", ""): value for name, value in tensors.items()}
    w = Weights.of(checkpoint.container("hift"), plain)
    graphs = [hift_source(w, dims), hift(w, dims)]
    w.assert_all_read([])
    yield from graphs


def _hift_dims(config: Config) -> HiFTDims:
    section = config.section("hift")
    rate = section.positive("sampling_rate")
    if rate == 22050:
        raise UnsupportedError(f"{section.where}: 22.05 kHz vocoders are of CosyVoice 1")
    transform = section.section("istft_params")
    dims = HiFTDims(
        mels=section.positive("in_channels"),
        base=section.positive("base_channels"),
        harmonics=section.positive("nb_harmonics"),
        sample_rate=rate,
        rates=_numbers(section, "upsample_rates"),
        kernels=_numbers(section, "upsample_kernel_sizes"),
        fft=transform.positive("n_fft"),
        hop=transform.positive("hop_len"),
        block_kernels=_numbers(section, "resblock_kernel_sizes"),
        source_kernels=_numbers(section, "source_resblock_kernel_sizes"),
        dilations=_lists(section, "resblock_dilation_sizes"),
        source_dilations=_lists(section, "source_resblock_dilation_sizes"),
        slope=section.get("lrelu_slope", float),
        limit=section.get("audio_limit", float),
        sine_amplitude=section.get("nsf_alpha", float),
        noise_deviation=section.get("nsf_sigma", float),
        threshold=section.get("nsf_voiced_threshold", float),
    )
    levels = {len(of) for of in (dims.rates, dims.kernels, dims.source_kernels)}
    if levels != {len(dims.source_dilations)} or len(dims.dilations) != len(dims.block_kernels):
        raise UsageError(f"{section.where}: its lists of levels or of blocks differ in length")
    flow = config.section("flow")
    # The older name of the rate is the only one in configurations of before April 2025.
    older = config.values.get("token_frame_rate") is None
    rate_of_tokens = (
        flow.positive("input_frame_rate") if older else config.positive("token_frame_rate")
    )
    frames = rate_of_tokens * flow.positive("token_mel_ratio")
    if dims.frame > _MAX_FRAME:
        raise IntegrityError(f"{section.where}: {dims.frame} samples a frame; refused")
    if dims.frame * frames != rate or dims.frame % 2:
        raise UnsupportedError(
            f"{section.where}: {dims.frame} samples a frame, but {rate} Hz and {frames} frames a "
            f"second need {rate / frames:g}, an even number"
        )
    return dims


def _divisor(section: Config, key: str, whole: int) -> int:
    value = section.positive(key)
    if whole % value:
        raise UsageError(f"{section.where}.{key} is {value}, which does not divide {whole}")
    return value


def _numbers(section: Config, key: str) -> tuple[int, ...]:
    values = section.get(key, list)
    _expect_few(section, key, values)
    return tuple(Config(section.where, {key: value}).positive(key) for value in values)


def _lists(section: Config, key: str) -> tuple[tuple[int, ...], ...]:
    values = section.get(key, list)
    _expect_few(section, key, values)
    return tuple(_numbers(Config(section.where, {key: value}), key) for value in values)


def _expect_few(section: Config, key: str, values: list[Any]) -> None:
    if not 0 < len(values) <= _MAX_LIST:
        raise UsageError(
            f"{section.where}.{key} has {len(values)} entries, expected 1 to {_MAX_LIST}"
        )


FAMILY = _CosyVoice2()
