"""Bundles of some languages: the same speech, fewer bytes, and a proof."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file
from support import COSYVOICE1, COSYVOICE3, GOLDEN, RECORDED, RUNTIMES, Build, Checkpoints
from tokenizers import Tokenizer

from edgepack.builder.pipeline import build
from edgepack.builder.planning import BuildRequest, VoiceRequest, open_source
from edgepack.builder.text_assets import text_assets
from edgepack.builder.trim.cut import cut
from edgepack.bundle import voices
from edgepack.bundle.bundle import open_bundle
from edgepack.errors import GateError, UsageError
from edgepack.model.checkpoint.folder import open_checkpoint
from edgepack.model.families.cosyvoice2 import FAMILY
from edgepack.runtime.loading import load
from edgepack.runtime.stages.decode import NOTHING
from edgepack.runtime.synthesizer import Settings, Synthesizer
from edgepack.runtime.trimmed import kept_rows
from edgepack.verification import reference

TEXTS = {
    "zh": "今天是2024年5月6日，气温25度，打八折。",
    "en": "Hello there, it is 25 degrees today.",
}
Language = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def spoken(
    tmp_path_factory: pytest.TempPathFactory, checkpoints: Checkpoints, bundle: Build
) -> Language:
    """Builds (once) a model for languages and intel-cpu."""
    output = tmp_path_factory.mktemp("languages")
    built: dict[tuple[str, str], Path] = {}

    def get(model: str, languages: str) -> Path:
        if languages == "all":
            return bundle(model)
        if (model, languages) not in built:
            codes = tuple(languages.split(","))
            request = BuildRequest(
                checkpoints(model), ["intel-cpu"], output, RUNTIMES, languages=codes
            )
            built[model, languages] = build(request)[0].bundle.folder
        return built[model, languages]

    return get


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("demo", "zh"),
        pytest.param("demo", "en", marks=pytest.mark.slow),
        *(
            pytest.param(name, "zh", marks=pytest.mark.slow)
            for name in (*COSYVOICE1, *RECORDED, *COSYVOICE3)
        ),
    ],
)
def test_speech_is_the_same_bit_for_bit(
    spoken: Language, model: str, code: str, runtime: str
) -> None:
    how = Settings(seed=3, strict=False)
    whole, trimmed = (
        Synthesizer.load(spoken(model, languages), runtime).speak(TEXTS[code], how)
        for languages in ("all", code)
    )
    for one, other in zip(whole.utterances, trimmed.utterances, strict=True):
        assert one.decoded.text == other.decoded.text
        assert one.decoded.speech_tokens == other.decoded.speech_tokens
    assert np.array_equal(whole.audio, trimmed.audio)
    assert trimmed.foreign == 0


def test_the_usual_opening_of_prompts_keeps_its_tokens(checkpoints: Checkpoints) -> None:
    """It is English, also where the language is not."""
    model = checkpoints(COSYVOICE3[0])
    source = open_source(model)
    opening = []
    for codes in ([], ["zh"]):
        request = BuildRequest(model, ["intel-cpu"], Path(), languages=codes)
        text = text_assets(request, source)
        ids = np.array(text.frontend.context(NOTHING).opening)
        opening.append(ids if text.rows is None else text.rows[ids])
    assert opening[0].tolist() == opening[1].tolist()
    assert len(opening[0]) > 1


@pytest.mark.parametrize("instruction", ["慢一点", "慢一点。", "慢一点<endofprompt>"])
def test_the_end_of_instructions_keeps_its_tokens_where_it_is_text(
    checkpoints: Checkpoints, instruction: str
) -> None:
    model = checkpoints(COSYVOICE1[0])
    source = open_source(model)
    request = BuildRequest(model, ["intel-cpu"], Path())
    whole = text_assets(request, source)
    trimmed = text_assets(replace(request, languages=["zh"]), source)
    assert trimmed.rows is not None
    ids = whole.frontend.instruction(instruction)
    assert trimmed.rows[trimmed.frontend.instruction(instruction)].tolist() == ids
    assert len(trimmed.rows) < source.family.text_rows(source.checkpoint)


@pytest.mark.slow
def test_a_voice_of_a_recording_speaks_the_same_bit_for_bit(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    with np.load(GOLDEN / COSYVOICE3[0] / "tts.npz") as recorded:
        soundfile.write(tmp_path / "anna.wav", recorded["api_prompt_wav"], 24000)
    voice = VoiceRequest("anna", tmp_path / "anna.wav", "今天天气很好。")
    audio = []
    for codes in ([], ["zh"]):
        request = BuildRequest(
            checkpoints(COSYVOICE3[0]), ["intel-cpu"], tmp_path / "".join(codes), ["ort"],
            precision="fp32", languages=codes, voices=[voice],
        )  # fmt: skip
        (built,) = build(request)
        assert bool(built.bundle.manifest.trim) == bool(codes)
        synthesizer = Synthesizer.load(built.bundle.folder)
        told = Settings(voice="anna", instruction="慢一点", seed=3, strict=False)
        for how in (replace(told, instruction=None), told):
            speech = synthesizer.speak("[ā]" + TEXTS["zh"], how)
            assert speech.foreign == 0
            audio.append(speech.audio)
    for whole, trimmed in zip(audio[:2], audio[2:], strict=True):
        assert np.array_equal(whole, trimmed)
    assert not np.array_equal(audio[0], audio[1])


def test_the_manifest_says_what_was_cut(spoken: Language) -> None:
    whole, trimmed = (open_bundle(spoken("demo", languages)) for languages in ("all", "zh"))
    assert (whole.manifest.language, whole.manifest.trim) == ("all", None)
    trim = trimmed.manifest.trim
    assert trim
    assert trimmed.manifest.languages == ("zh",)
    assert trim.rows_after < trim.rows_before
    assert trim.sentences >= 400
    for runtime in RUNTIMES:
        sizes = [
            sum(b.manifest.files[f].bytes for f in stage.variants[runtime].files)
            for b in (whole, trimmed)
            for stage in [b.manifest.stages["text_embedding"]]
        ]
        saving = trim.parts[f"text_embedding in {runtime}"]
        assert saving.after == sizes[1]
        assert saving.before == pytest.approx(sizes[0], rel=0.01)
    assert set(trimmed.manifest.normalizers) == {"zh"}
    assert not any("normalizers/en" in name for name in trimmed.manifest.files)
    rows = load_file(trimmed.path(trim.rows))["rows"]
    assert (np.diff(rows) > 0).all()
    assert len(rows) == trim.rows_after


@pytest.mark.slow
def test_text_of_another_language_is_told_or_refused(spoken: Language) -> None:
    synthesizer = Synthesizer.load(spoken("demo", "en"))
    mixed = "Good morning 世界"
    assert synthesizer.speak(mixed, Settings(strict=False)).foreign == pytest.approx(2 / 15)
    with pytest.raises(UsageError, match="世界"):
        synthesizer.speak(mixed, Settings(strict_language=True))
    with pytest.raises(UsageError, match="高兴"):
        synthesizer.speak("Fine.", Settings(strict_language=True, instruction="高兴"))


@pytest.mark.slow
def test_kept_words_are_no_longer_foreign(
    checkpoints: Checkpoints, spoken: Language, tmp_path: Path
) -> None:
    (tmp_path / "names.txt").write_text("打开WLAN\n\nBluetooth 耳机\n", "utf-8")
    request = BuildRequest(
        checkpoints("demo"), ["intel-cpu"], tmp_path, ["ort"], languages=["zh"],
        keep_text=tmp_path / "names.txt",
    )  # fmt: skip
    (built,) = build(request)
    trim = built.bundle.manifest.trim
    plain = open_bundle(spoken("demo", "zh")).manifest.trim
    assert trim
    assert plain
    assert trim.words == ("Bluetooth", "WLAN")
    assert trim.rows_after > plain.rows_after
    synthesizer = Synthesizer.load(built.bundle.folder)
    whole = Synthesizer.load(spoken("demo", "all"))
    how = Settings(strict=False)
    spoken_tokens = [s.speak("打开WLAN和Bluetooth。", how) for s in (synthesizer, whole)]
    assert spoken_tokens[0].foreign == 0
    assert np.array_equal(spoken_tokens[0].audio, spoken_tokens[1].audio)


def test_a_request_that_trims_nothing_is_refused(checkpoints: Checkpoints) -> None:
    original = FAMILY.tokenizer(open_checkpoint(Path(checkpoints("cosyvoice2-s1"))))
    tokens = Tokenizer.from_str(original).get_vocab_size()
    ids = range(tokens)
    with pytest.raises(GateError, match="nothing trimmed"):
        cut(original, ["zh"], tokens, [], [], ids)
    assert len(cut(original, ["zh"], tokens + 1, [], [], ids).trimmed.rows) == tokens


def test_a_long_run_of_foreign_text_joins_the_alphabet(checkpoints: Checkpoints) -> None:
    original = FAMILY.tokenizer(open_checkpoint(Path(checkpoints("cosyvoice2-s1"))))
    made = cut(original, ["ko"], 10**6, [], ["漢字" * 5000, "WLAN"])
    assert made.words == ("WLAN",)
    assert {"漢", "字"} <= made.characters


@pytest.mark.slow
def test_phones_get_no_enrolment_networks_but_the_voice_asked_for(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 32000)
    soundfile.write(tmp_path / "anna:1.wav", noise, 16000)
    voice = VoiceRequest.parse(f"anna={tmp_path / 'anna:1.wav'}:你好: 世界")
    assert (voice.name, voice.text) == ("anna", "你好: 世界")
    request = BuildRequest(
        checkpoints("cosyvoice2-s1"), ["android-arm64"], tmp_path, precision="fp32",
        languages=["zh"], voices=[voice],
    )  # fmt: skip
    (built,) = build(request)
    manifest = built.bundle.manifest
    assert "anna" in manifest.voices
    assert manifest.enrolment == {}
    assert not any(name.startswith("enrolment") for name in manifest.files)
    assert manifest.trim
    assert manifest.trim.parts["enrolment"].before > manifest.trim.parts["enrolment"].after == 0
    _, made = voices.read(built.bundle, "anna")
    assert made.prompt
    assert made.prompt.text.max() < manifest.trim.rows_after

    request = BuildRequest(
        checkpoints("cosyvoice2-s1"), ["android-arm64"], tmp_path / "kept", precision="fp32",
        keep_enrolment=True,
    )  # fmt: skip
    (kept,) = build(request)
    assert set(kept.bundle.manifest.enrolment) == {"speech_tokenizer", "speaker_encoder"}


@pytest.mark.parametrize("value", ["anna", "anna=a.wav", "anna=a.wav:", "../x=a.wav:b", "=a:b"])
def test_a_voice_request_that_is_not_whole_is_refused(value: str) -> None:
    with pytest.raises(UsageError):
        VoiceRequest.parse(value)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "code"), [(RECORDED[0], "zh"), (COSYVOICE3[0], "en")])
def test_recorded_vectors_are_renumbered_or_refused(
    spoken: Language, model: str, code: str
) -> None:
    loaded = load(spoken(model, code), "ort")
    vectors = GOLDEN / model
    arrays = np.load(vectors / "lm.npz")
    used = {int(i) for name in arrays.files if name.endswith("text_ids") for i in arrays[name].flat}
    if used <= set(kept_rows(loaded.bundle)):
        assert not [row for row in reference.run(loaded, vectors) if row.failed]
    else:
        with pytest.raises(UsageError, match="--language all"):
            reference.run(loaded, vectors)
