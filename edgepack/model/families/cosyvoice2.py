"""CosyVoice2: Qwen2 language model, upsampling conformer, causal U-Net, HiFT.

Source: FunAudioLLM/CosyVoice, `cosyvoice2.yaml` and cosyvoice/cli/model.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np

from edgepack.bundle.host import HostLoops
from edgepack.bundle.stages import Use
from edgepack.bundle.voices import Voice
from edgepack.graph.net import Graph
from edgepack.graph.weights import Weights, stack
from edgepack.model.checkpoint import tokenizer
from edgepack.model.checkpoint.config import Config
from edgepack.model.checkpoint.folder import Checkpoint
from edgepack.model.families import _files, _hift, _host, _qwen2, _releases, _values
from edgepack.model.networks.flow_encoder import ENCODER, FlowEncoderDims, flow_encoder
from edgepack.model.networks.flow_estimator import ESTIMATOR, TIME_EMBEDDING
from edgepack.model.networks.flow_unet import (
    FlowUNetDims,
    flow_time,
    flow_unet,
)
from edgepack.model.networks.hift import EXCITATION, VOCODER, hift, hift_source
from edgepack.model.networks.speech_lm import (
    LANGUAGE_MODEL,
    SPEECH_TABLE,
    TEXT_TABLE,
    embedding_table,
    speech_lm,
)
from edgepack.model.releases import Releases
from edgepack.report import Step, silent
from edgepack.runtime.strategies.flow import causal_chunks
from edgepack.runtime.strategies.language_model import text_then_speech
from edgepack.runtime.strategies.schedule import growing_chunks
from edgepack.runtime.strategies.text import byte_bpe
from edgepack.runtime.strategies.vocoder import hift as hift_vocoder

_EXTRA_IDS = 3  # end, an unused one, fill
_NOISE_FRAMES, _FLOW_STEPS = 15000, 10
_SCHEDULE = growing_chunks.Record(first_hop=25, max_hop=100, growth=2, mel_overlap=8)


class _CosyVoice2:
    networks: ClassVar[Mapping[str, str]] = {
        "llm": "Qwen2LM",
        "flow": "CausalMaskedDiffWithXvec",
        "hift": "HiFTGenerator",
    }
    stages: ClassVar[Mapping[str, Use]] = dict(
        [
            LANGUAGE_MODEL,
            TEXT_TABLE,
            SPEECH_TABLE,
            ENCODER,
            TIME_EMBEDDING,
            ESTIMATOR,
            EXCITATION,
            VOCODER,
        ]
    )
    releases: ClassVar[Releases] = _releases.COSYVOICE2

    def graphs(
        self, checkpoint: Checkpoint, text_rows: np.ndarray | None = None
    ) -> Iterator[Graph]:
        yield from _language_model(checkpoint, text_rows)
        yield from _flow(checkpoint)
        yield from _vocoder(checkpoint)

    def sample_rate(self, checkpoint: Checkpoint) -> int:
        return checkpoint.config.positive("sample_rate")

    def host(self, checkpoint: Checkpoint) -> HostLoops:
        config = checkpoint.config
        llm, flow = config.section("llm"), config.section("flow")
        speech = llm.positive("speech_token_size")
        solver, rate = _host.solver(flow), self.sample_rate(checkpoint)
        dims = _hift.dims(config)
        return HostLoops(
            text=byte_bpe.Record(end_of_prompt=_qwen2.END_OF_PROMPT),
            language_model=text_then_speech.Record(
                speech_tokens=speech,
                start=speech + _EXTRA_IDS,
                task=speech + _EXTRA_IDS + 1,
                end=speech,
                fill=speech + 2,
                masked_before_min=speech,
                min_ratio=2.0,
                max_ratio=20.0,
                mix=_host.mix(llm),
                sampling=_host.sampling(llm),
            ),
            flow=causal_chunks.Record(
                steps=_FLOW_STEPS,
                schedule=solver.schedule,
                guidance=solver.guidance,
                look_ahead=flow.positive("pre_lookahead_len"),
                chunk=_chunk(flow),
                ratio=flow.positive("token_mel_ratio"),
                mels=flow.positive("output_size"),
                noise_seed=0,
                noise_frames=_NOISE_FRAMES,
                heads=flow.section("decoder").section("estimator").positive("num_heads"),
            ),
            vocoder=hift_vocoder.Record(
                frame=dims.frame, partials=dims.harmonics + 1, context=dims.context
            ),
            schedule=_SCHEDULE,
            prompt=_host.prompt(config, rate, rate),
        )

    def text_rows(self, checkpoint: Checkpoint) -> int:
        return _qwen2.text_rows(checkpoint)

    def tokenizer(self, checkpoint: Checkpoint) -> str:
        return tokenizer.build(
            checkpoint, _qwen2.FOLDER, _qwen2.SPECIAL, self.text_rows(checkpoint)
        )

    def voices(self, checkpoint: Checkpoint, warn: Step = silent) -> Mapping[str, Voice]:
        return _files.voices(checkpoint, self.text_rows(checkpoint), warn)

    def enrolment(self, checkpoint: Checkpoint) -> Mapping[str, str]:
        return _files.enrolment(checkpoint, "speech_tokenizer_v2.onnx")

    def sources(self, checkpoint: Checkpoint) -> Sequence[str]:
        others = [*_qwen2.FILES, *self.enrolment(checkpoint).values()]
        return _files.sources(checkpoint, self.networks, others)


def _language_model(checkpoint: Checkpoint, text_rows: np.ndarray | None) -> Iterator[Graph]:
    speech = checkpoint.config.section("llm").positive("speech_token_size")
    dims = _qwen2.dims(checkpoint, speech + _EXTRA_IDS)
    w = Weights.of(checkpoint.container("llm"), checkpoint.tensors("llm"))
    backbone = w / "llm" / "model" / "model"
    text = _qwen2.text_table(checkpoint, backbone, text_rows)
    spoken = (w / "speech_embedding").get("weight", dims.logits, dims.hidden)
    marks = (w / "llm_embedding").get("weight", 2, dims.hidden)
    graphs = [
        speech_lm(backbone, w / "llm_decoder", dims),
        embedding_table(TEXT_TABLE, text),
        embedding_table(SPEECH_TABLE, stack(spoken.name, [spoken, marks], 0)),
    ]
    w.assert_all_read([_qwen2.HEAD])
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
                heads=_values.divisor(encoder, "attention_heads", encoder.positive("output_size")),
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


def _vocoder(checkpoint: Checkpoint) -> Iterator[Graph]:
    dims = _hift.dims(checkpoint.config)
    w = Weights.of(checkpoint.container("hift"), _hift.tensors(checkpoint))
    graphs = [hift_source(w, dims), hift(w, dims)]
    w.assert_all_read([])
    yield from graphs


FAMILY = _CosyVoice2()
