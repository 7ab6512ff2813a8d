"""CosyVoice 1 (300M, -SFT, -Instruct, -25Hz): transformers, a length regulator, U-Net, HiFT.

Source: FunAudioLLM/CosyVoice, `cosyvoice.yaml` and cosyvoice/cli/model.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np

from edgepack.bundle.host import HostLoops
from edgepack.bundle.stages import Use
from edgepack.bundle.voices import Voice
from edgepack.errors import UnsupportedError
from edgepack.graph.net import Graph
from edgepack.graph.weights import Weights, stack
from edgepack.model.checkpoint import whisper_tokenizer
from edgepack.model.checkpoint.config import Config
from edgepack.model.checkpoint.folder import Checkpoint
from edgepack.model.families import _files, _hift, _host, _releases, _values
from edgepack.model.networks.conformer import ConformerDims
from edgepack.model.networks.flow_encoder import ENCODER
from edgepack.model.networks.flow_estimator import ESTIMATOR, TIME_EMBEDDING
from edgepack.model.networks.flow_unet import (
    FlowUNetDims,
    flow_time,
    flow_unet,
)
from edgepack.model.networks.hift import EXCITATION, VOCODER, hift
from edgepack.model.networks.hift_dims import HiFTDims
from edgepack.model.networks.regulated_flow_encoder import (
    RegulatedFlowEncoderDims,
    regulated_flow_encoder,
)
from edgepack.model.networks.sine_source import sine_source
from edgepack.model.networks.speaker import SPEAKER_ROW, speaker_row
from edgepack.model.networks.speech_lm import (
    LANGUAGE_MODEL,
    SPEECH_TABLE,
    TEXT_TABLE,
    embedding_table,
)
from edgepack.model.networks.text_encoder import TEXT_ENCODER, TextEncoderDims, text_encoder
from edgepack.model.networks.transformer_lm import TransformerLMDims, transformer_lm
from edgepack.model.releases import Releases
from edgepack.report import Step, silent
from edgepack.runtime.strategies.flow import regulated
from edgepack.runtime.strategies.language_model import speaker_then_text
from edgepack.runtime.strategies.schedule import overlapping_chunks
from edgepack.runtime.strategies.text import whisper_bpe
from edgepack.runtime.strategies.vocoder import phased_hift

_FLOW_STEPS = 10
_NOISE_FRAMES = 15000  # of an utterance at most, as the other releases have
_GROUPS = 8  # of the norms in matcha's Block1D
# CosyVoiceModel.__init__: tokens that two chunks of a stream share, mel frames the vocoder is given
# again, seconds of a chunk. ConditionalCFM.forward: frames of noise that are kept, at any rate.
_OVERLAP, _MEL_CONTEXT, _CHUNK_SECONDS, _KEPT_FRAMES = 20, 20, 2, 34
_PROMPT_RATE = 24000  # Hz, at which prompts are read; the mel takes them for its own rate's
_END_OF_INSTRUCTION = "<endofprompt>"  # plain text, added to an instruction (frontend_instruct)


class _CosyVoice1:
    networks: ClassVar[Mapping[str, str]] = {
        "llm": "TransformerLM",
        "flow": "MaskedDiffWithXvec",
        "hift": "HiFTGenerator",
    }
    stages: ClassVar[Mapping[str, Use]] = dict(
        [
            LANGUAGE_MODEL,
            TEXT_TABLE,
            TEXT_ENCODER,
            SPEAKER_ROW,
            SPEECH_TABLE,
            ENCODER,
            TIME_EMBEDDING,
            ESTIMATOR,
            EXCITATION,
            VOCODER,
        ]
    )
    releases: ClassVar[Releases] = _releases.COSYVOICE1

    def graphs(
        self, checkpoint: Checkpoint, text_rows: np.ndarray | None = None
    ) -> Iterator[Graph]:
        yield from _language_model(checkpoint, text_rows)
        yield from _flow(checkpoint)
        yield from _vocoder(checkpoint)

    def sample_rate(self, checkpoint: Checkpoint) -> int:
        return checkpoint.config.section("hift").positive("sampling_rate")

    def host(self, checkpoint: Checkpoint) -> HostLoops:
        config = checkpoint.config
        llm, flow = config.section("llm"), config.section("flow")
        features, solver = config.section("feat_extractor"), _host.solver(flow)
        speech, rate = llm.positive("speech_token_size"), flow.positive("input_frame_rate")
        sample_rate = features.positive("sampling_rate")
        dims = _hift_dims(config)
        return HostLoops(
            text=whisper_bpe.Record(end_of_prompt=_END_OF_INSTRUCTION),
            language_model=speaker_then_text.Record(
                speech_tokens=speech,
                start=speech,
                task=speech + 1,
                masked_before_min=speech,
                min_ratio=2.0,
                max_ratio=20.0,
                sampling=_host.sampling(llm),
            ),
            flow=regulated.Record(
                steps=_FLOW_STEPS,
                schedule=solver.schedule,
                guidance=solver.guidance,
                mels=flow.positive("output_size"),
                noise_frames=_NOISE_FRAMES,
                heads=flow.section("decoder").section("estimator").positive("num_heads"),
                tokens=rate,
                sample_rate=sample_rate,
                hop=features.positive("hop_size"),
                margin=_OVERLAP,
                kept=_KEPT_FRAMES,
            ),
            vocoder=phased_hift.Record(
                frame=dims.frame, partials=dims.harmonics + 1, context=dims.context
            ),
            schedule=overlapping_chunks.Record(
                hop=_CHUNK_SECONDS * rate, overlap=_OVERLAP, mel_context=_MEL_CONTEXT
            ),
            prompt=_host.prompt(config, sample_rate, _PROMPT_RATE),
        )

    def text_rows(self, checkpoint: Checkpoint) -> int:
        return checkpoint.config.section("llm").positive("text_token_size")

    def tokenizer(self, checkpoint: Checkpoint) -> str:
        return whisper_tokenizer.build(checkpoint, self.text_rows(checkpoint))

    def voices(self, checkpoint: Checkpoint, warn: Step = silent) -> Mapping[str, Voice]:
        return _files.voices(checkpoint, self.text_rows(checkpoint), warn)

    def enrolment(self, checkpoint: Checkpoint) -> Mapping[str, str]:
        return _files.enrolment(checkpoint, "speech_tokenizer_v1.onnx")

    def sources(self, checkpoint: Checkpoint) -> Sequence[str]:
        others = [whisper_tokenizer.RANKS_OF_25HZ, *self.enrolment(checkpoint).values()]
        return _files.sources(checkpoint, self.networks, others)


def _language_model(checkpoint: Checkpoint, text_rows: np.ndarray | None) -> Iterator[Graph]:
    config = checkpoint.config.section("llm")
    encoder, decoder = config.section("text_encoder"), config.section("llm")
    embedded, inputs = config.positive("text_encoder_input_size"), config.positive("llm_input_size")
    hidden, speech = config.positive("llm_output_size"), config.positive("speech_token_size")
    encoder.expect(input_size=embedded)
    decoder.expect(
        input_layer="linear_legacy",
        pos_enc_layer_type="rel_pos_espnet",
        selfattention_layer_type="rel_selfattn",
        normalize_before=True,
        activation_type="relu",
        input_size=inputs,
        output_size=hidden,
    )
    dims = TransformerLMDims(
        inputs=inputs,
        hidden=hidden,
        feed_forward=decoder.positive("linear_units"),
        layers=decoder.positive("num_blocks"),
        heads=_values.divisor(decoder, "attention_heads", hidden),
        logits=speech + 1,
    )
    w = Weights.of(checkpoint.container("llm"), checkpoint.tensors("llm"))
    text = (w / "text_embedding").get("weight", config.positive("text_token_size"), embedded)
    if text_rows is not None:
        text = text.map((len(text_rows), embedded), lambda table: table[text_rows])
    spoken = (w / "speech_embedding").get("weight", speech, inputs)
    marks = (w / "llm_embedding").get("weight", 2, inputs)
    chunk = encoder.get("static_chunk_size", int, 0)
    graphs = [
        transformer_lm(w, dims),
        embedding_table(TEXT_TABLE, text),
        text_encoder(w, TextEncoderDims(embedded, inputs, chunk, _conformer(encoder))),
        speaker_row(w / "spk_embed_affine_layer", inputs, config.positive("spk_embed_dim")),
        embedding_table(SPEECH_TABLE, stack(spoken.name, [spoken, marks], 0)),
    ]
    w.assert_all_read([])
    yield from graphs


def _conformer(encoder: Config) -> ConformerDims:
    encoder.expect(
        input_layer="linear",
        pos_enc_layer_type="rel_pos_espnet",
        selfattention_layer_type="rel_selfattn",
        normalize_before=True,
        use_cnn_module=False,
        macaron_style=False,
        use_dynamic_chunk=False,
        activation_type="swish",
    )
    hidden = encoder.positive("output_size")
    return ConformerDims(
        hidden=hidden,
        heads=_values.divisor(encoder, "attention_heads", hidden),
        feed_forward=encoder.positive("linear_units"),
        layers=encoder.positive("num_blocks"),
    )


def _flow(checkpoint: Checkpoint) -> Iterator[Graph]:
    config = checkpoint.config.section("flow")
    encoder, regulator = config.section("encoder"), config.section("length_regulator")
    embedded, mels = config.positive("input_size"), config.positive("output_size")
    encoder.expect(input_size=embedded, static_chunk_size=0)
    regulator.expect(channels=mels, out_channels=mels, groups=1)
    estimator = config.section("decoder").section("estimator")
    estimator.expect(act_fn="gelu", out_channels=mels)
    w = Weights.of(checkpoint.container("flow"), checkpoint.tensors("flow"))
    unet = FlowUNetDims(
        mels=mels,
        heads=estimator.positive("num_heads"),
        head_width=estimator.positive("attention_head_dim"),
        groups=_GROUPS,
    )
    graphs = [
        regulated_flow_encoder(
            w,
            RegulatedFlowEncoderDims(
                vocabulary=config.positive("vocab_size"),
                embedded=embedded,
                mels=mels,
                speaker=config.positive("spk_embed_dim"),
                convolutions=len(_values.numbers(regulator, "sampling_ratios")),
                conformer=_conformer(encoder),
            ),
        ),
        flow_time(w / "decoder" / "estimator", unet),
        flow_unet(w / "decoder" / "estimator", unet),
    ]
    w.assert_all_read([])
    yield from graphs


def _vocoder(checkpoint: Checkpoint) -> Iterator[Graph]:
    dims = _hift_dims(checkpoint.config)
    w = Weights.of(checkpoint.container("hift"), _hift.tensors(checkpoint))
    graphs = [sine_source(w, dims), hift(w, dims)]
    w.assert_all_read([])
    yield from graphs


def _hift_dims(config: Config) -> HiFTDims:
    section, features = config.section("hift"), config.section("feat_extractor")
    found, hop = _hift.sizes(section), features.positive("hop_size")
    if found.sample_rate != _hift.SAMPLEWISE:
        raise UnsupportedError(
            f"{section.where}: vocoders of {found.sample_rate} Hz are of CosyVoice 2 and 3"
        )
    if found.frame != hop:
        raise UnsupportedError(
            f"{section.where}: {found.frame} samples a frame, but a mel frame has {hop}"
        )
    return found


FAMILY = _CosyVoice1()
