"""A checkpoint as the hubs release it: no voices, much besides what is used, all of it links."""

import hashlib
import os
from pathlib import Path

REVISION = "4adacdf7b1ba0a6b2a5a3f6d1c9e4b2a7d8f0e13"
# Besides what a bundle is made of; nothing that would be read as what its name says.
STRAYS = (
    ".gitattributes",
    "CosyVoice-BlankEN/generation_config.json",
    "CosyVoice-BlankEN/model.safetensors",
    "asset/dingding.png",
    "config.json",
    "configuration.json",
    "flow.cache.pt",
    "flow.decoder.estimator.fp32.onnx",
    "flow.encoder.fp16.zip",
    "flow.encoder.fp32.zip",
    "llm.rl.pt",
    "speech_tokenizer_v2.batch.onnx",
)
README = "---\nlicense: apache-2.0\n---\nA model card.\n"


def released(checkpoint: Path, cache: Path) -> Path:
    """A copy of a checkpoint in a Hugging Face cache; returns the folder of the snapshot."""
    repository = cache / "models--FunAudioLLM--CosyVoice2-0.5B"
    snapshot = repository / "snapshots" / REVISION
    files = [path for path in checkpoint.rglob("*") if path.is_file()]
    for path in files:
        name = path.relative_to(checkpoint)
        if str(name) not in ("spk2info.pt", "MODEL_CARD.md", *STRAYS):
            _link(repository / "blobs", snapshot / name, path.read_bytes())
    for stray in STRAYS:
        _link(repository / "blobs", snapshot / stray, f"not what {stray} should be".encode())
    _link(repository / "blobs", snapshot / "README.md", README.encode())
    return snapshot


def _link(blobs: Path, path: Path, data: bytes) -> None:
    blobs.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    blob = blobs / hashlib.sha256(data).hexdigest()
    blob.write_bytes(data)
    path.symlink_to(os.path.relpath(blob, path.parent))
