"""A synthesizer speaks on while others change the bundle, or its process goes elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from linked import linked
from support import Build

from edgepack.bundle import voices
from edgepack.bundle.bundle import Bundle
from edgepack.errors import UsageError
from edgepack.runtime.synthesizer import LoadOptions, Settings, Synthesizer

QUIET = Settings(voice="random", seed=1, strict=False)
CHANGING = """
import sys
from pathlib import Path
import numpy as np
from edgepack.bundle import voices
from edgepack.bundle.bundle import open_bundle
bundle = open_bundle(Path(sys.argv[1]))
other = voices.Voice(-voices.read(bundle, "random")[1].speaker)
for name in sys.argv[2:]:
    bundle = voices.add(bundle, name, other, replace=True)
"""


@pytest.fixture
def tiny(bundle: Build, tmp_path: Path) -> Bundle:
    return linked(bundle("tiny"), tmp_path)


@pytest.mark.parametrize("memory", ["all", "low"])
def test_voices_are_replaced_and_added_by_another_process(tiny: Bundle, memory: str) -> None:
    synthesizer = Synthesizer.load(tiny.folder, "ort", 1, options=LoadOptions(memory=memory))
    before = synthesizer.speak("hello", QUIET).audio
    subprocess.run([sys.executable, "-c", CHANGING, str(tiny.folder), "random", "new"], check=True)
    assert np.array_equal(synthesizer.speak("hello", QUIET).audio, before)
    added = synthesizer.speak("hello", Settings(voice="new", seed=1, strict=False)).audio
    assert not np.array_equal(added, before)
    synthesizer.reload_voices()
    assert np.array_equal(synthesizer.speak("hello", QUIET).audio, added)
    with pytest.raises(UsageError, match="voice 'newer'"):
        synthesizer.speak("hello", Settings(voice="newer"))


def test_a_voice_that_was_removed_speaks_on(tiny: Bundle) -> None:
    more = voices.add(tiny, "more", voices.read(tiny, None)[1])
    synthesizer = Synthesizer.load(more.folder, "ort", 1)
    voices.remove(more, "more")
    assert synthesizer.speak("hello", Settings(voice="more", strict=False)).voice == "more"
    synthesizer.reload_voices()
    with pytest.raises(UsageError, match="voice 'more'"):
        synthesizer.speak("hello", Settings(voice="more"))


@pytest.mark.parametrize("memory", ["all", "low"])
def test_the_process_goes_to_another_folder(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: str
) -> None:
    monkeypatch.chdir(tiny.folder.parent)
    synthesizer = Synthesizer.load(
        Path(tiny.folder.name), "ort", 1, options=LoadOptions(memory=memory)
    )
    os.chdir("/")
    assert synthesizer.speak("hello", QUIET).audio_seconds > 0


def test_a_link_to_the_bundle_leads_elsewhere(tiny: Bundle, tmp_path: Path) -> None:
    current = tmp_path / "current"
    current.symlink_to(tiny.folder)
    synthesizer = Synthesizer.load(current, "ort", 1, options=LoadOptions(memory="low"))
    current.unlink()
    assert synthesizer.speak("hello", QUIET).audio_seconds > 0
