"""CosyVoice3: Qwen2 language model, look-ahead, diffusion transformer, causal HiFT.

Source: FunAudioLLM/CosyVoice, `cosyvoice3.yaml` and cosyvoice/cli/model.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import ClassVar

import numpy as np

from edgepack.bundle.host import HostLoops
from edgepack.bundle.stages import Use
from edgepack.bundle.voices import Voice
from edgepack.errors import UnsupportedError
from edgepack.graph.net import Graph
from edgepack.graph.weights import Weights
from edgepack.model.checkpoint import tokenizer
from edgepack.model.checkpoint.config import Config
from edgepack.model.checkpoint.folder import Checkpoint
from edgepack.model.families import _files, _hift, _host, _qwen2, _releases, _sounds
from edgepack.model.networks.causal_hift import EXCITATION, causal_hift, causal_hift_source
from edgepack.model.networks.flow_dit import FlowDiTDims, flow_dit, flow_dit_time
from edgepack.model.networks.flow_encoder import ENCODER
from edgepack.model.networks.flow_estimator import ESTIMATOR, TIME_EMBEDDING
from edgepack.model.networks.flow_front import FlowFrontDims, flow_front
from edgepack.model.networks.hift import VOCODER
from edgepack.model.networks.hift_dims import CausalHiFTDims
from edgepack.model.networks.speech_lm import (
    LANGUAGE_MODEL,
    SPEECH_TABLE,
    TEXT_TABLE,
    embedding_table,
    speech_lm,
)
from edgepack.model.releases import Releases
from edgepack.report import Step, silent
from edgepack.runtime.stages.noise import BLOCK
from edgepack.runtime.strategies.flow import look_ahead
from edgepack.runtime.strategies.language_model import text_then_speech
from edgepack.runtime.strategies.schedule import growing_mel
from edgepack.runtime.strategies.text import opened_bpe
from edgepack.runtime.strategies.vocoder import causal_hift as causal_vocoder

_MARKS = 200  # ids after speech: start, end, task, fill and others that stop
_START, _END, _TASK, _FILL = range(4)
_NOISE_SEED, _NOISE_FRAMES, _FLOW_STEPS = 0, 15000, 10
_PITCH_AHEAD = 3  # frames, of the first convolution of the pitch
_PITCH_TAPS, _PITCH_LAYERS = 3, 4  # of its other convolutions
# Speech tokens that are silence, and how many in a row are kept (CosyVoice3Model.__init__).
_SILENT_TOKENS = (1, 2, 28, 29, 55, 248, 494, 2241, 2242, 2322, 2323)
_LONGEST_SILENCE = 5
_OPENING = "You are a helpful assistant."  # as the original's examples have it


class _CosyVoice3:
    networks: ClassVar[Mapping[str, str]] = {
        "llm": "CosyVoice3LM",
        "flow": "CausalMaskedDiffWithDiT",
        "hift": "CausalHiFTGenerator",
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
    releases: ClassVar[Releases] = _releases.COSYVOICE3

    def graphs(
        self, checkpoint: Checkpoint, text_rows: np.ndarray | None = None
    ) -> Iterator[Graph]:
        yield from _language_model(checkpoint, text_rows)
        yield from _flow(checkpoint)
        yield from _vocoder(checkpoint)

    def sample_rate(self, checkpoint: Checkpoint) -> int:
        return checkpoint.config.positive("sample_rate")

    def host(self, checkpoint: Checkpoint) -> HostLoops:
        rate = checkpoint.config.section("feat_extractor").positive("sampling_rate")
        return HostLoops(
            text=opened_bpe.Record(end_of_prompt=_qwen2.END_OF_PROMPT, opening=_OPENING),
            language_model=_decoding(checkpoint),
            flow=_solving(checkpoint),
            vocoder=_vocoding(checkpoint),
            schedule=growing_mel.Record(first_hop=25, max_hop=100, growth=2),
            prompt=_host.prompt(checkpoint.config, rate, rate),
        )

    def text_rows(self, checkpoint: Checkpoint) -> int:
        return _qwen2.text_rows(checkpoint)

    def tokenizer(self, checkpoint: Checkpoint) -> str:
        special = [*_qwen2.SPECIAL, *_sounds.TOKENS]
        return tokenizer.build(checkpoint, _qwen2.FOLDER, special, self.text_rows(checkpoint))

    def voices(self, checkpoint: Checkpoint, warn: Step = silent) -> Mapping[str, Voice]:
        return _files.voices(checkpoint, self.text_rows(checkpoint), warn)

    def enrolment(self, checkpoint: Checkpoint) -> Mapping[str, str]:
        return _files.enrolment(checkpoint, "speech_tokenizer_v3.onnx")

    def sources(self, checkpoint: Checkpoint) -> Sequence[str]:
        others = [*_qwen2.FILES, *self.enrolment(checkpoint).values()]
        return _files.sources(checkpoint, self.networks, others)


def _decoding(checkpoint: Checkpoint) -> text_then_speech.Record:
    """Settings of the token loop."""
    llm = checkpoint.config.section("llm")
    speech = llm.positive("speech_token_size")
    return text_then_speech.Record(
        speech_tokens=speech,
        start=speech + _START,
        task=speech + _TASK,
        end=speech + _END,
        fill=speech + _FILL,
        masked_before_min=speech,  # the start, which never comes: ends may come early
        min_ratio=2.0,
        max_ratio=20.0,
        mix=_host.mix(llm),
        silent=_SILENT_TOKENS,
        longest_silence=_LONGEST_SILENCE,
        sampling=_host.sampling(llm),
    )


def _solving(checkpoint: Checkpoint) -> look_ahead.Record:
    """Settings of the flow decoder."""
    flow = checkpoint.config.section("flow")
    solver = _host.solver(flow)
    ratio = flow.positive("token_mel_ratio")
    estimator = flow.section("decoder").section("estimator")
    frames = estimator.positive("static_chunk_size")
    if frames % ratio:
        raise UnsupportedError(
            f"{estimator.where}.static_chunk_size is {frames} frames, no whole number of "
            f"tokens of {ratio}"
        )
    return look_ahead.Record(
        steps=_FLOW_STEPS,
        schedule=solver.schedule,
        guidance=solver.guidance,
        look_ahead=flow.positive("pre_lookahead_len"),
        chunk=frames // ratio,
        ratio=ratio,
        mels=flow.positive("output_size"),
        noise_seed=_NOISE_SEED,
        noise_frames=_NOISE_FRAMES,
        heads=estimator.positive("heads"),
    )


def _vocoding(checkpoint: Checkpoint) -> causal_vocoder.Record:
    """Settings of the vocoder.

    Its noise goes on in the generator of the flow decoder's, after what the networks between
    them were initialised with: each of their weights took one number.
    """
    dims = _dims(checkpoint.config)
    flow = checkpoint.config.section("flow")
    mels, speaker = flow.positive("output_size"), flow.positive("spk_embed_dim")
    rows = flow.positive("vocab_size") * flow.positive("input_size")
    drawn = mels * _NOISE_FRAMES + rows + (BLOCK if rows % BLOCK else 0)
    drawn += mels * speaker + mels
    pitch = checkpoint.config.section("hift").section("f0_predictor")
    width = pitch.positive("cond_channels")
    drawn += width * pitch.positive("in_channels") * (_PITCH_AHEAD + 1) + width
    drawn += _PITCH_LAYERS * (width * width * _PITCH_TAPS + width) + width + 1
    return causal_vocoder.Record(
        frame=dims.frame,
        partials=dims.harmonics + 1,
        context=dims.context,
        ahead=dims.ahead,
        pitch_ahead=dims.pitch_ahead,
        overhang=dims.fft // 2,
        noise_seed=_NOISE_SEED,
        noise_skip=drawn + dims.harmonics + 1,  # and the initial phases
        noise_frames=_NOISE_FRAMES,
    )


def _language_model(checkpoint: Checkpoint, text_rows: np.ndarray | None) -> Iterator[Graph]:
    speech = checkpoint.config.section("llm").positive("speech_token_size")
    dims = _qwen2.dims(checkpoint, speech + _MARKS, biased=False)
    w = Weights.of(checkpoint.container("llm"), checkpoint.tensors("llm"))
    backbone = w / "llm" / "model" / "model"
    text = _qwen2.text_table(checkpoint, backbone, text_rows)
    spoken = (w / "speech_embedding").get("weight", dims.logits, dims.hidden)
    graphs = [
        speech_lm(backbone, w / "llm_decoder", dims),
        embedding_table(TEXT_TABLE, text),
        embedding_table(SPEECH_TABLE, spoken),
    ]
    w.assert_all_read([_qwen2.HEAD])
    yield from graphs


def _flow(checkpoint: Checkpoint) -> Iterator[Graph]:
    config = checkpoint.config.section("flow")
    mels, ahead = config.positive("output_size"), config.positive("pre_lookahead_len")
    config.expect(input_size=mels)
    layer = config.section("pre_lookahead_layer")
    layer.expect(in_channels=mels, pre_lookahead_len=ahead)
    estimator = config.section("decoder").section("estimator")
    estimator.expect(mel_dim=mels, mu_dim=mels, spk_dim=mels, out_channels=mels)
    w = Weights.of(checkpoint.container("flow"), checkpoint.tensors("flow"))
    front = FlowFrontDims(
        vocabulary=config.positive("vocab_size"),
        between=layer.positive("channels"),
        mels=mels,
        speaker=config.positive("spk_embed_dim"),
        look_ahead=ahead,
        ratio=config.positive("token_mel_ratio"),
    )
    transformer = FlowDiTDims(
        mels=mels,
        hidden=estimator.positive("dim"),
        layers=estimator.positive("depth"),
        heads=estimator.positive("heads"),
        head_width=estimator.positive("dim_head"),
    )
    graphs = [
        flow_front(w, front),
        flow_dit_time(w / "decoder" / "estimator", transformer),
        flow_dit(w / "decoder" / "estimator", transformer),
    ]
    w.assert_all_read([])
    yield from graphs


def _vocoder(checkpoint: Checkpoint) -> Iterator[Graph]:
    dims = _dims(checkpoint.config)
    w = Weights.of(checkpoint.container("hift"), _hift.tensors(checkpoint))
    graphs = [causal_hift_source(w, dims), causal_hift(w, dims)]
    w.assert_all_read([])
    yield from graphs


def _dims(config: Config) -> CausalHiFTDims:
    plain = _hift.dims(config)
    ahead = config.section("hift").positive("conv_pre_look_right")
    return CausalHiFTDims(**asdict(plain), ahead=ahead, pitch_ahead=_PITCH_AHEAD)


FAMILY = _CosyVoice3()
