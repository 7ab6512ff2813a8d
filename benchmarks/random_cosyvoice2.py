"""CosyVoice2 checkpoints of random weights, for `random_checkpoint.py`."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import random_configuration
import random_enrolment
import torch_zip_writer as writer
from random_configuration import Size
from random_weights import Shapes, conv, linear, norm, state_dict, weight_norm
from safetensors.numpy import save_file

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "edgepack" / "demo_voice"
QWEN2 = ROOT / "tests" / "data" / "qwen2-tokenizer"
SPEAKER, MELS = random_enrolment.SPEAKER, random_enrolment.MELS


TINY = Size(
    text_rows=6208, speech=729, hidden=40, intermediate=56, layers=3, heads=5, kv_heads=1,
    encoder=36, encoder_heads=3, encoder_ff=50, encoder_blocks=2, chunk=10, channels=24,
    estimator_heads=3, head_width=12, blocks=2, mid_blocks=2, base=32, condition=20, harmonics=6,
    rates=[10, 6], kernels=[20, 12], fft=32, hop=8, res_kernels=[3, 5], source_kernels=[5, 7],
    dilations=[1, 2],
)  # fmt: skip
FULL = Size()


def llm_shapes(s: Size) -> Shapes:
    """Tensors of llm.pt but the tied lm_head."""
    width = s.hidden // s.heads
    shapes: Shapes = {
        "llm_embedding.weight": (2, s.hidden),
        "llm.model.model.embed_tokens.weight": (s.text_rows, s.hidden),
    }
    for i in range(s.layers):
        p = f"llm.model.model.layers.{i}"
        for part, n in (("q", s.heads), ("k", s.kv_heads), ("v", s.kv_heads)):
            shapes |= linear(f"{p}.self_attn.{part}_proj", n * width, s.hidden)
        shapes |= linear(f"{p}.self_attn.o_proj", s.hidden, s.hidden, bias=False)
        for part in ("gate", "up"):
            shapes |= linear(f"{p}.mlp.{part}_proj", s.intermediate, s.hidden, bias=False)
        shapes |= linear(f"{p}.mlp.down_proj", s.hidden, s.intermediate, bias=False)
        shapes[f"{p}.input_layernorm.weight"] = (s.hidden,)
        shapes[f"{p}.post_attention_layernorm.weight"] = (s.hidden,)
    shapes["llm.model.model.norm.weight"] = (s.hidden,)
    shapes |= linear("llm_decoder", s.speech + 3, s.hidden)
    shapes["speech_embedding.weight"] = (s.speech + 3, s.hidden)
    return shapes


def flow_shapes(s: Size) -> Shapes:
    """Tensors of flow.pt."""
    d = s.encoder
    shapes: Shapes = {"input_embedding.weight": (s.speech, d)}
    shapes |= linear("spk_embed_affine_layer", MELS, SPEAKER)
    shapes |= linear("encoder.embed.out.0", d, d) | norm("encoder.embed.out.1", d)
    shapes |= norm("encoder.after_norm", d)
    shapes |= conv("encoder.pre_lookahead_layer.conv1", d, d, 4)
    shapes |= conv("encoder.pre_lookahead_layer.conv2", d, d, 3)
    blocks = [f"encoder.encoders.{i}" for i in range(s.encoder_blocks)]
    for p in blocks + [f"encoder.up_encoders.{i}" for i in range(4)]:
        for bias in ("u", "v"):
            shapes[f"{p}.self_attn.pos_bias_{bias}"] = (s.encoder_heads, d // s.encoder_heads)
        for part in ("q", "k", "v", "out"):
            shapes |= linear(f"{p}.self_attn.linear_{part}", d, d)
        shapes |= linear(f"{p}.self_attn.linear_pos", d, d, bias=False)
        shapes |= linear(f"{p}.feed_forward.w_1", s.encoder_ff, d)
        shapes |= linear(f"{p}.feed_forward.w_2", d, s.encoder_ff)
        shapes |= norm(f"{p}.norm_ff", d) | norm(f"{p}.norm_mha", d)
    shapes |= conv("encoder.up_layer.conv", d, d, 5)
    shapes |= linear("encoder.up_embed.out.0", d, d) | norm("encoder.up_embed.out.1", d)
    shapes |= linear("encoder_proj", MELS, d)

    c, e = s.channels, "decoder.estimator"
    shapes |= linear(f"{e}.time_mlp.linear_1", 4 * c, 4 * MELS)
    shapes |= linear(f"{e}.time_mlp.linear_2", 4 * c, 4 * c)

    def level(p: str, inputs: int) -> Shapes:
        inner = s.estimator_heads * s.head_width
        found = linear(f"{p}.0.mlp.1", c, 4 * c) | conv(f"{p}.0.res_conv", c, inputs, 1)
        for block, width in (("block1", inputs), ("block2", c)):
            found |= conv(f"{p}.0.{block}.block.0", c, width, 3) | norm(f"{p}.0.{block}.block.2", c)
        for j in range(s.blocks):
            t = f"{p}.1.{j}"
            for part in ("q", "k", "v"):
                found |= linear(f"{t}.attn1.to_{part}", inner, c, bias=False)
            found |= linear(f"{t}.attn1.to_out.0", c, inner)
            found |= norm(f"{t}.norm1", c) | norm(f"{t}.norm3", c)
            found |= linear(f"{t}.ff.net.0.proj", 4 * c, c) | linear(f"{t}.ff.net.2", c, 4 * c)
        return found

    shapes |= level(f"{e}.down_blocks.0", 4 * MELS) | conv(f"{e}.down_blocks.0.2", c, c, 3)
    for i in range(s.mid_blocks):
        shapes |= level(f"{e}.mid_blocks.{i}", c)
    shapes |= level(f"{e}.up_blocks.0", 2 * c) | conv(f"{e}.up_blocks.0.2", c, c, 3)
    shapes |= conv(f"{e}.final_block.block.0", c, c, 3) | norm(f"{e}.final_block.block.2", c)
    return shapes | conv(f"{e}.final_proj", MELS, c, 1)


def hift_shapes(s: Size) -> Shapes:
    """Tensors of hift.pt."""
    shapes = linear("m_source.l_linear", 1, s.harmonics + 1)
    shapes |= weight_norm("conv_pre", (s.base, MELS, 7), s.base)

    def residual(p: str, width: int, taps: int) -> Shapes:
        found: Shapes = {}
        for side in "12":
            for i in range(len(s.dilations)):
                found |= weight_norm(f"{p}.convs{side}.{i}", (width, width, taps), width)
                found[f"{p}.activations{side}.{i}.alpha"] = (width,)
        return found

    for i, taps in enumerate(s.kernels):
        wide, width = s.base >> i, s.base >> (i + 1)
        shapes |= weight_norm(f"ups.{i}", (wide, width, taps), width)
        stride = math.prod(s.rates[i + 1 :])
        shapes |= conv(f"source_downs.{i}", width, s.fft + 2, 1 if stride == 1 else 2 * stride)
        shapes |= residual(f"source_resblocks.{i}", width, s.source_kernels[i])
        for j, kernel in enumerate(s.res_kernels):
            shapes |= residual(f"resblocks.{i * len(s.res_kernels) + j}", width, kernel)
    shapes |= weight_norm("conv_post", (s.fft + 2, s.base >> len(s.rates), 7), s.fft + 2)
    for i in range(5):
        inputs = MELS if i == 0 else s.condition
        p = f"f0_predictor.condnet.{2 * i}"
        shapes |= weight_norm(p, (s.condition, inputs, 3), s.condition)
    return shapes | linear("f0_predictor.classifier", 1, s.condition)


def text_files(folder: Path, s: Size, tokenizer: Path) -> Path:
    """Write the tokenizer's folder of a checkpoint, and return it."""
    blank = folder / "CosyVoice-BlankEN"
    blank.mkdir(parents=True, exist_ok=True)
    (blank / "config.json").write_text(json.dumps(random_configuration.qwen2(s), indent=2))
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "tokenizer.json"):
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, blank / name)
    return blank


def write(folder: Path, s: Size, tokenizer: Path) -> None:
    """Write the whole checkpoint folder."""
    blank = text_files(folder, s, tokenizer)
    (folder / "cosyvoice2.yaml").write_text(random_configuration.cosyvoice2(s))
    save_file({"model.norm.weight": np.ones(s.hidden, np.float32)}, blank / "model.safetensors")

    llm = state_dict(llm_shapes(s))
    llm["llm.model.lm_head.weight"] = llm["llm.model.model.embed_tokens.weight"]  # tied
    writer.save(folder / "llm.pt", llm)
    writer.save(folder / "flow.pt", state_dict(flow_shapes(s)))
    writer.save(folder / "hift.pt", state_dict(hift_shapes(s)))
    random_enrolment.speech_tokenizer(folder / "speech_tokenizer_v2.onnx", s.speech)
    random_enrolment.speaker_encoder(folder / "campplus.onnx")
    embedding = np.random.default_rng(5).standard_normal((1, SPEAKER), np.float32)
    writer.save(folder / "spk2info.pt", {"random": {"embedding": embedding}})
