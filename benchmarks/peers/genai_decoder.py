"""A decoder of the size of CosyVoice2's language model in onnxruntime-genai, as a yardstick.

    python benchmarks/peers/genai_decoder.py write DIR
    DIR/bin/python benchmarks/peers/genai_decoder.py time DIR [--past 200] [--tokens 60]
        [--threads 2]

`write` makes a virtual environment in DIR with onnxruntime-genai, PyTorch and transformers, which
its builder needs and edgepack does not, writes a Qwen2 model of random weights in the layout of
Hugging Face, and has the builder convert it to int8 weights in blocks of 128 (`accuracy_level` 4).
`time` prints seconds of steps after so many tokens as JSON. Threads spin while they wait, which is
its default.
"""

import argparse
import json
import subprocess
import sys
import time
import venv
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch==2.13.0",
    "transformers",
    "onnxruntime-genai",
    "onnx",
    "onnx-ir",
    "safetensors",
)
BLOCK, BITS = 128, 8
_WARM_UP = 5
_MODEL, _DECODER = "qwen2", "decoder"


def write(folder: Path) -> None:
    """Make the environment and the decoder."""
    sys.path.append(str(Path(__file__).parents[1]))
    from random_configuration import Size

    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    sizes = json.dumps(asdict(Size()))
    subprocess.run([python, __file__, "random", str(folder), "--sizes", sizes], check=True)
    options = ["accuracy_level=4", f"block_size={BLOCK}"]
    builder: list[str | Path] = [
        "-m",
        "onnxruntime_genai.models.builder",
        "-p",
        f"int{BITS}",
        "-e",
        "cpu",
    ]
    paths: list[str | Path] = [
        "-i",
        folder / _MODEL,
        "-o",
        folder / _DECODER,
        "-c",
        folder / "cache",
    ]
    subprocess.run([python, *builder, *paths, "--extra_options", *options], check=True)


def write_random(folder: Path, sizes: dict[str, int]) -> None:
    """A Qwen2 model of random weights; runs in the environment of `write`."""
    torch, transformers = map(import_module, ("torch", "transformers"))
    config = transformers.Qwen2Config(
        vocab_size=sizes["speech"] + 3,
        hidden_size=sizes["hidden"],
        intermediate_size=sizes["intermediate"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        num_key_value_heads=sizes["kv_heads"],
        max_position_embeddings=4096,
        rope_theta=1e6,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    transformers.Qwen2ForCausalLM(config).save_pretrained(folder / _MODEL)


def timed(folder: Path, past: int, tokens: int, threads: int) -> list[float]:
    """Seconds of each step after `past` tokens; runs in the environment of `write`."""
    genai = import_module("onnxruntime_genai")
    config = genai.Config(str(folder / _DECODER))
    session = {"intra_op_num_threads": threads}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
    model = genai.Model(config)
    params = genai.GeneratorParams(model)
    length = past + _WARM_UP + tokens
    params.set_search_options(do_sample=False, min_length=length + 1, max_length=length + 2)
    generator = genai.Generator(model, params)
    generator.append_tokens([n % 1000 + 2 for n in range(past)])
    seconds = []
    for _ in range(_WARM_UP + tokens):
        start = time.perf_counter()
        generator.generate_next_token()
        seconds.append(time.perf_counter() - start)
    return seconds[_WARM_UP:]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["write", "random", "time"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", default="{}", help=argparse.SUPPRESS)
    parser.add_argument("--past", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    options: Any = parser.parse_args()
    if options.what == "write":
        write(options.folder)
    elif options.what == "random":
        write_random(options.folder, json.loads(options.sizes))
    else:
        seconds = timed(options.folder, options.past, options.tokens, options.threads)
        json.dump(seconds, sys.stdout)


if __name__ == "__main__":
    main()
