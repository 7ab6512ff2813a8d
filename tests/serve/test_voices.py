"""Voices that the owner of a bundle changes while it is served."""

import json
from pathlib import Path

import pytest
from linked import linked
from served import Served, serving
from support import Build

from edgepack.bundle import voices
from edgepack.bundle.bundle import Bundle
from edgepack.bundle.voices import Voice
from edgepack.runtime.synthesizer import Synthesizer
from edgepack.serve.options import ServeOptions

TEXT = "Good morning."


def heard(served: Served, voice: str) -> bytes:
    answer = served.speak(TEXT, voice=voice, response_format="pcm")
    assert answer.status == 200, answer.body
    return answer.body


def like(bundle: Bundle, name: str) -> Voice:
    return voices.read(bundle, name)[1]


@pytest.mark.slow
def test_a_new_voice_speaks_at_once_and_a_replaced_one_after_a_restart(
    bundle: Build, tmp_path: Path
) -> None:
    demo = linked(bundle("demo"), tmp_path)
    options = ServeOptions()
    with serving(Synthesizer.load(demo.folder, "ort", 2), options) as served:
        male, female = heard(served, "espeak_male"), heard(served, "espeak_female")
        assert male != female
        voices.add(demo, "new", like(demo, "espeak_male"))
        voices.add(demo, "espeak_female", like(demo, "espeak_male"), replace=True)
        listed = json.loads(served.get("/v1/audio/voices").body)["voices"]
        assert "new" in [voice["id"] for voice in listed]
        assert heard(served, "new") == male
        assert served.metric('edgepack_cache_requests_total{result="hit"}') == 1  # by its content
        assert heard(served, "espeak_female") == female
        assert served.speak(TEXT, voice="espeak_female", seed=1).status == 200
    with serving(Synthesizer.load(demo.folder, "ort", 2), options) as served:
        assert heard(served, "espeak_female") == male
