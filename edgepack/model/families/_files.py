"""Files of a released checkpoint that the families find in the same way."""

from collections.abc import Iterable, Mapping, Sequence

from edgepack.bundle.voices import Voice
from edgepack.model.checkpoint.folder import Checkpoint
from edgepack.model.families import _spk2info
from edgepack.report import Step

_SPEAKERS, _SPEAKER_ENCODER = "spk2info.pt", "campplus.onnx"


def enrolment(checkpoint: Checkpoint, speech_tokenizer: str) -> Mapping[str, str]:
    """The networks that make a voice of a recording, by role; none unless both are there."""
    files = {"speech_tokenizer": speech_tokenizer, "speaker_encoder": _SPEAKER_ENCODER}
    return files if all(checkpoint.has(f) for f in files.values()) else {}


def voices(checkpoint: Checkpoint, text_rows: int, warn: Step) -> Mapping[str, Voice]:
    """Voices of the table of speakers, if there is one; `warn` is told what is left out."""
    if not checkpoint.has(_SPEAKERS):
        return {}
    tree, flow = checkpoint.objects(_SPEAKERS), checkpoint.config.section("flow")
    return _spk2info.read(tree, flow, text_rows, warn)


def sources(checkpoint: Checkpoint, parts: Iterable[str], others: Iterable[str]) -> Sequence[str]:
    """Those files that are there: configuration, weights of `parts`, speakers, and `others`."""
    weights = [checkpoint.container(part) for part in parts]
    names = [checkpoint.config_name, *weights, _SPEAKERS, *others]
    return [name for name in names if checkpoint.has(name)]
