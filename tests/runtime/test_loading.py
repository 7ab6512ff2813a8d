"""Engines by name, and from a bundle on disk to loaded networks."""

import os
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from linked import changed, linked
from support import RUNTIMES, Build

from edgepack.bundle import voices
from edgepack.bundle.bundle import Bundle, open_bundle
from edgepack.errors import IntegrityError, UnsupportedError, UsageError
from edgepack.runtime.engines.installed import engines
from edgepack.runtime.engines.session import Feeds, engine
from edgepack.runtime.load_options import LoadOptions
from edgepack.runtime.loading import (
    Host,
    choose,
    load,
    open_enroller,
    open_stage,
    with_session,
)
from edgepack.runtime.stages.flow import Condition
from edgepack.runtime.stages.solver import euler
from edgepack.runtime.strategies.flow.causal_chunks import CausalChunks


@pytest.fixture
def demo(bundle: Build, tmp_path: Path) -> Bundle:
    return linked(bundle("demo"), tmp_path)


def flipped(bundle: Bundle, name: str) -> bytes:
    """The bytes of a file with one bit changed in the middle."""
    data = bytearray((bundle.folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    return bytes(data)


def test_both_runtimes_are_found() -> None:
    assert set(RUNTIMES) <= set(engines())
    for name in RUNTIMES:
        assert engine(name).version()


@pytest.mark.parametrize(
    ("name", "hint"),
    [("openvno", "did you mean 'openvino'"), ("tpu", "known: .*openvino.*ort")],
)
def test_an_unknown_engine_is_met_with_a_suggestion(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"'{name}'; {hint}"):
        engine(name)


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    package = engine(name).distribution
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        UnsupportedError, match=rf"{package} is not installed; pip install 'edgepack\[{name}\]'"
    ):
        engine(name)


@pytest.mark.parametrize("name", RUNTIMES)
def test_an_estimator_of_any_engine_does_in_a_bundle_of_another(demo: Bundle, name: str) -> None:
    loaded = load(demo.folder, "ort", 1)
    guest = open_stage(demo, "flow_estimator", Host(name, 1))
    assert guest.batches == engine(name).batches
    condition = Condition(voices.read(demo, None)[1].speaker)
    own, other = (
        of.flow.mel(list(range(20)), condition)
        for of in (loaded, with_session(loaded, "flow_estimator", guest))
    )
    np.testing.assert_allclose(other, own, atol=1e-3)


def test_the_first_runtime_and_all_cpus_are_chosen(demo: Bundle) -> None:
    first = next(iter(demo.manifest.stages["speech_lm"].variants))
    assert choose(demo, None, None) == Host(first, len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtime_and_its_threads_can_be_named(demo: Bundle, name: str) -> None:
    assert choose(demo, name, 3) == Host(name, 3)


def test_an_unknown_runtime_is_met_with_a_suggestion(demo: Bundle) -> None:
    with pytest.raises(UsageError, match="unknown runtime 'otr'; did you mean 'ort'"):
        choose(demo, "otr", None)


def test_a_runtime_that_one_stage_lacks_cannot_be_chosen(demo: Bundle) -> None:
    stages = dict(demo.manifest.stages)
    only = {"ort": stages["hift"].variants["ort"]}
    stages["hift"] = msgspec.structs.replace(stages["hift"], variants=only)
    bundle = demo.with_manifest(msgspec.structs.replace(demo.manifest, stages=stages))
    assert choose(bundle, None, 1).runtime == "ort"
    with pytest.raises(UsageError, match="unknown runtime 'openvino'; known: ort"):
        load(bundle.folder, "openvino")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_watchers_see_every_network(demo: Bundle, runtime: str) -> None:
    seen: list[str] = []

    def watch(stage: str, seconds: float, feeds: Feeds, outputs: dict[str, np.ndarray]) -> None:
        seen.append(stage)

    loaded = load(demo.folder, runtime, 1, LoadOptions(watchers=[watch]))
    decoder, flow, vocoder = loaded.decoder, loaded.flow, loaded.vocoder
    assert loaded.host == Host(runtime, 1)
    decoder.language_model.run({"embeddings": decoder.prefix([5])})
    assert isinstance(flow, CausalChunks)
    feeds = flow.encoder_feeds([1, 2], np.ones(192), final=True, chunked=False)
    encoded = flow.encoder.run(feeds)
    mel = flow.solve(encoded["mu"], encoded["spk"], encoded["mu"], solver=euler(flow.settings, 1))
    vocoder.synthesize(mel, vocoder.noise(mel.shape[2], None))
    assert set(seen) == set(loaded.bundle.manifest.stages)
    assert loaded.stream.settings == loaded.bundle.manifest.host.schedule


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("number", [0, -1], ids=["network", "weights"])
def test_a_changed_byte_is_found_before_loading(demo: Bundle, runtime: str, number: int) -> None:
    name = demo.manifest.stages["speech_lm"].variants[runtime].files[number]
    changed(demo, name, flipped(demo, name))
    with pytest.raises(IntegrityError, match=rf"{name}: not the bytes that were built"):
        load(demo.folder, runtime)


def test_a_changed_tokenizer_is_found(demo: Bundle) -> None:
    changed(demo, "tokenizer.json", flipped(demo, "tokenizer.json"))
    with pytest.raises(IntegrityError, match=r"tokenizer\.json: not the bytes that were built"):
        load(demo.folder)


def test_a_missing_file_is_found(demo: Bundle) -> None:
    name = demo.manifest.stages["speech_lm"].variants["ort"].files[0]
    (demo.folder / name).unlink()
    with pytest.raises(IntegrityError, match=f"{name}: missing from the bundle"):
        load(demo.folder, "ort")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_the_engine_refuses_is_an_integrity_error(demo: Bundle, runtime: str) -> None:
    name = demo.manifest.stages["hift"].variants[runtime].files[0]
    bundle = changed(demo, name, b"<not a network/>", listed=True)
    with pytest.raises(IntegrityError, match=f"{name}: .* cannot load it"):
        open_stage(bundle, "hift", Host(runtime, 1))


def test_a_folder_without_a_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no bundle there"):
        load(tmp_path)


def test_enrolment_needs_its_networks(demo: Bundle) -> None:
    bundle = Bundle(demo.folder, msgspec.structs.replace(demo.manifest, enrolment={}))
    with pytest.raises(UsageError, match="has no enrolment networks; build it from a checkpoint"):
        open_enroller(bundle, Host("ort", 1))


def test_changed_enrolment_networks_are_found(demo: Bundle) -> None:
    name = demo.manifest.enrolment["speaker_encoder"].file
    changed(demo, name, flipped(demo, name))
    with pytest.raises(IntegrityError, match=f"{name}: not the bytes that were built"):
        open_enroller(open_bundle(demo.folder), Host("ort", 1))
