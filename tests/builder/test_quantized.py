"""Bundles of integer weights, with fixed recipes so that none is searched."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from support import RUNTIMES, Build

from edgepack.builder.pipeline import build
from edgepack.builder.planning import BuildRequest
from edgepack.bundle.bundle import Bundle, open_bundle
from edgepack.bundle.metrics import Limit, Metric
from edgepack.errors import GateError
from edgepack.profiles import target
from edgepack.runtime.synthesizer import Synthesizer
from edgepack.verification import evaluation
from edgepack.verification.quality import mel_cepstral_distortion

ALONE = "{ort: {speech_lm: nbits8, default: fp32}}"


@pytest.fixture(autouse=True)
def use_cache(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared / "cache"))


def request(output: Path, recipe: Path | str, **options: object) -> BuildRequest:
    if isinstance(recipe, str):
        output.mkdir(exist_ok=True)
        file = output / "recipe.yaml"
        file.write_text(recipe)
        recipe = file
    made = BuildRequest("demo", ["intel-cpu"], output, RUNTIMES, precision="int8", recipe=recipe)
    return replace(made, languages=["zh"], **options)  # type: ignore[arg-type]


def size(bundle: Bundle) -> int:
    return sum(file.bytes for file in bundle.manifest.files.values())


def test_it_passes_its_exam_in_every_runtime(int8_demo: Bundle) -> None:
    quality = int8_demo.manifest.quality
    assert quality
    assert quality.failed == ()
    questions = evaluation.read(int8_demo.path(quality.exam))
    whole = [q.spoken for q in questions if len(q.spoken.tokens) < evaluation.LONGEST]
    assert quality.speech_ratio == (
        round(min(len(s.tokens) / len(s.text) for s in whole), 4) if whole else msgspec.UNSET
    )
    for runtime in RUNTIMES:
        values = quality.values[runtime]
        assert values["lm_agreement"].low >= 0.96
        assert values["lm_agreement"].high - values["lm_agreement"].low <= 0.04
        assert values["lm_kld"].high <= 0.01
        assert values["mel_lsd"].high <= 1.0
        assert values["si_sdr"].low >= 20
        assert 0.9 <= values["duration_ratio"].low <= values["duration_ratio"].high <= 1.1
        assert set(values) | set(quality.not_measured[runtime]) == set(get_args(Metric))


def test_it_has_two_fifths_of_the_bytes(int8_demo: Bundle, tmp_path: Path) -> None:
    wanted = BuildRequest("demo", ["intel-cpu"], tmp_path, RUNTIMES, languages=["zh"])
    (whole,) = build(wanted)
    assert size(int8_demo) <= 0.4 * size(whole.bundle)


def test_it_sounds_like_fp32_on_the_same_tokens(int8_demo: Bundle, bundle: Build) -> None:
    for runtime in RUNTIMES:
        one, other = (
            Synthesizer.load(folder, runtime) for folder in (bundle("demo"), int8_demo.folder)
        )
        tokens = one.speak("你好，今天天气很好。").utterances[0].decoded.speech_tokens
        sounds = [s.speak_tokens(tokens).audio for s in (one, other)]
        assert mel_cepstral_distortion(sounds[1], sounds[0], 24000) < 2.0


@pytest.fixture
def gated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuildRequest:
    """A build with a gate that nothing passes."""
    profile = target.load("intel-cpu")
    wide = {"mel_lsd": Limit(high=9.0), "si_sdr": Limit(low=0.0), "broken": Limit(high=0.0)}
    strict = {"int8": {"lm_agreement": Limit(low=1.5), **wide}}
    planted = msgspec.structs.replace(profile, gates=strict)
    monkeypatch.setattr(target, "load", lambda name: planted)
    return request(tmp_path, ALONE, formats=["ort"], solver="reference")


@pytest.mark.slow
def test_a_failed_gate_leaves_no_bundle(gated: BuildRequest) -> None:
    with pytest.raises(GateError, match=r"ort: lm_agreement is .*at least 1\.5"):
        build(gated)
    assert not list(gated.output.glob("*/manifest.json"))


@pytest.mark.slow
def test_a_failed_gate_is_recorded_if_a_bundle_is_wanted_all_the_same(gated: BuildRequest) -> None:
    allowed = replace(gated, allow_failed_gate=True)
    (built,) = build(allowed)
    quality = open_bundle(built.bundle.folder).manifest.quality
    assert quality
    assert len(quality.failed) == 1
    assert "lm_agreement" in quality.failed[0]
    with pytest.raises(GateError, match=r"failed its gates .*lm_agreement is .*--force"):
        build(gated)
    assert build(allowed)[0].reused is True


@pytest.mark.slow
def test_a_recipe_search_chooses_for_every_network(tmp_path: Path) -> None:
    wanted = BuildRequest(
        "demo", ["intel-cpu"], tmp_path, ["ort"], precision="int8", languages=["zh"]
    )
    (built,) = build(wanted)
    assert built.measured
    for name, stage in built.bundle.manifest.stages.items():
        variant, offers = stage.variants["ort"], built.measured.candidates["ort"][name]
        assert variant.reason
        assert [offer.verdict for offer in offers].count("chosen") == 1
        assert offers[0].recipe == variant.recipe
        assert {"fp32", "fp16"} <= {offer.recipe for offer in offers}
    # The last one that is chosen for a part was examined with the others, as the bundle is.
    quality = built.bundle.manifest.quality
    assert quality
    for name in ("speech_embedding", "flow_time"):
        values = built.measured.candidates["ort"][name][0].values
        for metric, value in values.items():
            assert value.count == quality.values["ort"][metric].count
            bundles = quality.values["ort"][metric].value
            assert value.value == pytest.approx(bundles, rel=0.05, abs=1e-3)
    assert built.bundle.manifest.stages["speech_lm"].variants["ort"].precision == "int8"
