"""Bundles whose files do not fit each other, or change while they are open."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from fakes import Fake
from linked import changed, linked
from safetensors.numpy import load as arrays_of
from safetensors.numpy import save
from support import RUNTIMES, Build
from tokenizers import AddedToken, Tokenizer

from edgepack.bundle.bundle import Bundle, open_bundle, stored
from edgepack.bundle.tokenizer_file import SPLIT
from edgepack.errors import IntegrityError, ResourceError, UnsupportedError
from edgepack.runtime import loading
from edgepack.runtime.engines.session import (
    Accelerator,
    Options,
    Placed,
    Session,
    engine,
    translated,
)
from edgepack.runtime.gpu.reruns import Guarded, Reruns
from edgepack.runtime.loading import Host, load, open_enroller, open_frontend, open_stage
from edgepack.runtime.strategies.language_model import text_then_speech
from edgepack.runtime.strategies.vocoder import hift
from edgepack.runtime.synthesizer import LoadOptions, Settings, Synthesizer
from edgepack.runtime.text.front_end import Frontend

CALM = Settings(strict=False)


@pytest.fixture
def tiny(bundle: Build, tmp_path: Path) -> Bundle:
    return linked(bundle("tiny"), tmp_path)


def with_manifest(bundle: Bundle, **fields: object) -> Bundle:
    return bundle.with_manifest(msgspec.structs.replace(bundle.manifest, **fields))


@pytest.mark.parametrize("runtime", ["ort", "openvino"])
def test_weights_that_change_between_two_utterances_are_not_spoken(
    tiny: Bundle, runtime: str
) -> None:
    synthesizer = Synthesizer.load(tiny.folder, runtime, 1, options=LoadOptions(memory="low"))
    assert synthesizer.speak("Hi.", CALM).audio_seconds > 0
    name = tiny.manifest.stages["speech_lm"].variants[runtime].files[-1]
    changed(tiny, name, bytes((tiny.folder / name).stat().st_size))
    with pytest.raises(IntegrityError, match=f"{name}: not the bytes that were built"):
        synthesizer.speak("Hi.", CALM)


def test_a_grammar_that_changes_before_it_is_needed_is_not_read(tiny: Bundle) -> None:
    frontend = open_frontend(tiny)
    name = tiny.manifest.normalizers["en"].files[0]
    changed(tiny, name, (tiny.folder / name).read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=f"{name}: not the bytes that were built"):
        frontend.utterances("It is 5 o'clock.")


class OnGpu(Fake):
    """A network that is a function and says that it is on a GPU."""

    @property
    def placed(self) -> Placed:
        return Placed("cuda", {})

    def before(self) -> dict[str, np.ndarray]:
        return {}


@dataclass
class Twin:
    """An engine whose networks are functions, and a placement that has them on a GPU."""

    opened: list[str] = field(default_factory=list)
    reruns: Reruns = field(default_factory=Reruns)

    def open(self, path: Path, states: Sequence[object], options: Options) -> Session:
        self.opened.append(path.name)
        return OnGpu(lambda feeds: {"audio": np.full(1, np.nan, np.float32)})

    def accelerator(self, stage: str) -> Accelerator:
        return Accelerator((("cuda", {}),))

    def settle(self, stage: str, placed: Placed) -> None:
        pass


def test_a_network_in_float32_is_checked_when_it_is_needed(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "ort/hift.fp32.onnx"
    (tiny.folder / name).write_bytes(b"weights")
    stage = tiny.manifest.stages["hift"]
    variant = stage.variants["ort"]
    variant = msgspec.structs.replace(variant, files=(*variant.files, name))
    stages = tiny.manifest.stages | {
        "hift": msgspec.structs.replace(stage, variants={**stage.variants, "ort": variant})
    }
    files = tiny.manifest.files | {name: stored(tiny.folder / name)}
    listed = with_manifest(tiny, stages=stages, files=files)
    twin = Twin()
    monkeypatch.setattr(loading, "engine", lambda name: twin)
    session = open_stage(listed, "hift", Host("ort", 1, placement=twin))  # type: ignore[arg-type]
    assert isinstance(session, Guarded)
    session.run({})
    assert twin.opened == ["hift.onnx", "hift.fp32.onnx"]
    session.twin = None
    (tiny.folder / name).write_bytes(b"changed")
    with pytest.raises(IntegrityError, match=f"{name}: not the bytes that were built"):
        session.run({})


@pytest.mark.parametrize("runtime", ["ort", "openvino"])
def test_weights_that_are_not_listed_are_not_read(tiny: Bundle, runtime: str) -> None:
    """ONNX Runtime reads what an .onnx names, OpenVINO a .bin beside its .xml."""
    stage = tiny.manifest.stages["hift"]
    first, weights = stage.variants[runtime].files
    variant = msgspec.structs.replace(stage.variants[runtime], files=(first,))
    stages = tiny.manifest.stages | {
        "hift": msgspec.structs.replace(stage, variants={**stage.variants, runtime: variant})
    }
    files = {name: f for name, f in tiny.manifest.files.items() if name != weights}
    unlisted = with_manifest(tiny, stages=stages, files=files)
    with pytest.raises(IntegrityError, match=f"{weights}: not of this bundle"):
        open_stage(unlisted, "hift", Host(runtime, 1))
    listed = with_manifest(unlisted, files=tiny.manifest.files)  # but of no network
    open_stage(listed, "hift", Host(runtime, 1))
    changed(listed, weights, bytes((tiny.folder / weights).stat().st_size))
    with pytest.raises(IntegrityError, match=f"{weights}: not the bytes that were built"):
        open_stage(listed, "hift", Host(runtime, 1))


def test_files_beside_the_enrolment_networks_are_not_read(tiny: Bundle) -> None:
    (tiny.folder / "enrolment" / "weights").write_bytes(b"x")
    with pytest.raises(IntegrityError, match="enrolment/weights: not of this bundle"):
        open_enroller(tiny, Host("ort", 1))


def voice(bundle: Bundle, **parts: np.ndarray) -> Bundle:
    """The bundle with other arrays in its voice."""
    name = bundle.manifest.voices["random"]
    whole = arrays_of((bundle.folder / name).read_bytes()) | parts
    return changed(bundle, name, save(whole), listed=True)


def prompt(**parts: np.ndarray) -> dict[str, np.ndarray]:
    whole: dict[str, np.ndarray] = {
        "prompt_text": np.array([1, 2]),
        "prompt_tokens": np.array([1, 2, 3]),
        "prompt_mel": np.zeros((6, 80), np.float32),
    }
    return whole | parts


VOICES: dict[str, dict[str, np.ndarray]] = {
    "speaker of another width": {"speaker": np.zeros(191, np.float32)},
    "speaker of two rows": {"speaker": np.zeros((1, 192), np.float32)},
    "speaker of whole numbers": {"speaker": np.zeros(192, np.int64)},
    "speaker of NaN": {"speaker": np.full(192, np.nan, np.float32)},
    "text beyond the table": prompt(prompt_text=np.array([1, 10**6])),
    "text below zero": prompt(prompt_text=np.array([-1])),
    "tokens beyond speech": prompt(prompt_tokens=np.array([1, 2, 10**6])),
    "tokens that are no numbers": prompt(prompt_tokens=np.zeros(3, np.float32)),
    "mel of another width": prompt(prompt_mel=np.zeros((6, 79), np.float32)),
    "mel of another length": prompt(prompt_mel=np.zeros((5, 80), np.float32)),
}


@pytest.mark.parametrize("name", VOICES)
def test_a_voice_that_does_not_fit_is_found_when_a_bundle_is_loaded(
    tiny: Bundle, name: str
) -> None:
    with pytest.raises(IntegrityError, match="voice"):
        load(voice(tiny, **VOICES[name]).folder, "ort")


def test_a_voice_that_fits_is_loaded(tiny: Bundle) -> None:
    load(voice(tiny, **prompt()).folder, "ort")


def test_a_tokenizer_with_ids_beyond_the_table_is_found(tiny: Bundle) -> None:
    tokenizer = Tokenizer.from_file(str(tiny.folder / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(f"<{n}>") for n in range(40)])
    other = changed(tiny, "tokenizer.json", tokenizer.to_str().encode(), listed=True)
    with pytest.raises(IntegrityError, match=r"tokenizer\.json: has ids up to"):
        load(other.folder, "ort")


def test_a_tokenizer_that_does_not_know_the_end_of_a_prompt_is_found(tiny: Bundle) -> None:
    replace, host = msgspec.structs.replace, tiny.manifest.host
    other = with_manifest(tiny, host=replace(host, text=replace(host.text, end_of_prompt="<|0|>")))
    with pytest.raises(IntegrityError, match="does not know the end-of-prompt token"):
        load(other.folder, "ort")


Recorded = dict[str, np.ndarray]


def swapped(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Recorded], None]:
    def apply(recorded: Recorded) -> None:
        recorded[name] = np.ascontiguousarray(change(recorded[name]))

    return apply


SELF_TESTS: dict[str, Callable[[Recorded], object]] = {
    "an input is missing": lambda r: r.pop("hift/0/in/mel"),
    "an input more": lambda r: r.update({"hift/0/in/other": np.zeros(1)}),
    "a stage is missing": lambda r: [r.pop(name) for name in [*r] if name.startswith("hift/")],
    "a name of no form": lambda r: r.update({"hift": np.zeros(1)}),
    "a speaker of another width": swapped("flow_encoder/0/in/speaker", lambda a: a[:, 1:]),
    "ids of two rows": swapped("text_embedding/0/in/ids", lambda a: np.concatenate([a, a])),
    "another kind": swapped("text_embedding/0/in/ids", lambda a: a.astype(np.float32)),
    "fewer mels": swapped("hift/0/in/mel", lambda a: a[:, 1:]),
    "fewer partials": swapped("hift_source/0/in/noise", lambda a: a[..., 1:]),
    "half a frame": swapped("hift/0/in/source", lambda a: a[..., 1:]),
    "another width of rows": swapped("speech_lm/0/in/embeddings", lambda a: a[..., 1:]),
}


@pytest.mark.parametrize("name", SELF_TESTS)
def test_a_self_test_that_does_not_fit_is_found(tiny: Bundle, name: str) -> None:
    recorded = arrays_of((tiny.folder / tiny.manifest.self_test).read_bytes())
    SELF_TESTS[name](recorded)
    other = changed(tiny, tiny.manifest.self_test, save(recorded), listed=True)
    with pytest.raises(IntegrityError, match=r"selftest\.safetensors|has a speaker embedding"):
        load(other.folder, "ort")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_network_of_other_widths_than_the_self_test_is_found(tiny: Bundle, runtime: str) -> None:
    """All widths of the bundle agree, but the network was made for another speaker's."""
    recorded = arrays_of((tiny.folder / tiny.manifest.self_test).read_bytes())
    for number in range(2):
        name = f"flow_encoder/{number}/in/speaker"
        recorded[name] = np.ascontiguousarray(recorded[name][:, 1:])
    other = changed(tiny, tiny.manifest.self_test, save(recorded), listed=True)
    with pytest.raises(IntegrityError, match="flow_encoder takes speaker of"):
        open_stage(other, "flow_encoder", Host(runtime, 1))


def test_a_manifest_of_other_networks_is_found(tiny: Bundle) -> None:
    host = tiny.manifest.host
    assert isinstance(host.vocoder, hift.Record)
    assert isinstance(host.language_model, text_then_speech.Record)
    vocoder = msgspec.structs.replace(host.vocoder, partials=200)
    other = with_manifest(tiny, host=msgspec.structs.replace(host, vocoder=vocoder))
    with pytest.raises(IntegrityError, match=r"hift_source: noise is .* expected f"):
        load(other.folder, "ort")
    lm = msgspec.structs.replace(host.language_model, start=10**6)
    other = with_manifest(tiny, host=msgspec.structs.replace(host, language_model=lm))
    with pytest.raises(IntegrityError, match="no rows of the speech table"):
        load(other.folder, "ort")


def test_a_runtime_or_reader_of_a_later_version_is_unsupported(tiny: Bundle) -> None:
    readers = {
        code: msgspec.structs.replace(reader, name="later")
        for code, reader in tiny.manifest.normalizers.items()
    }
    with pytest.raises(UnsupportedError, match="needs the normalizer 'later'"):
        load(with_manifest(tiny, normalizers=readers).folder, "ort")
    stage = tiny.manifest.stages["hift"]
    variant = msgspec.structs.replace(stage.variants["ort"], engine="later")
    stages = tiny.manifest.stages | {
        "hift": msgspec.structs.replace(stage, variants={**stage.variants, "ort": variant})
    }
    with pytest.raises(UnsupportedError, match="needs the runtime 'later'"):
        load(with_manifest(tiny, stages=stages).folder, "ort")


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    "feeds",
    [
        {"mel": np.zeros((1, 79, 4), np.float32), "source": np.zeros((1, 1, 1920), np.float32)},
        {"mel": np.zeros((1, 80, 4, 1), np.float32), "source": np.zeros((1, 1, 1920), np.float32)},
        {"mel": np.array([["a"]]), "source": np.zeros((1, 1, 1920), np.float32)},
        {"other": np.zeros(1, np.float32)},
    ],
    ids=["width", "axes", "type", "name"],
)
def test_what_an_engine_says_while_it_runs_is_one_of_our_errors(
    bundle: Build, runtime: str, feeds: Mapping[str, np.ndarray]
) -> None:
    opened = open_bundle(bundle("tiny"))
    session = open_stage(opened, "hift", Host(runtime, 1))
    with pytest.raises(IntegrityError, match=rf"{runtime}/hift\.\w+: .* cannot run it"):
        session.run(feeds)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_cache_that_a_network_does_not_have_is_one_of_our_errors(
    tiny: Bundle, runtime: str
) -> None:
    stage = tiny.manifest.stages["speech_lm"]
    states = tuple(msgspec.structs.replace(s, input=f"{s.input}x") for s in stage.states)
    path = tiny.path(stage.variants[runtime].files[0])
    with pytest.raises(IntegrityError, match="cannot load it"):
        engine(runtime).open(path, states, Options(1))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), ResourceError),
        (RuntimeError("std::bad_alloc"), ResourceError),
        (RuntimeError("bfc_arena.cc: Failed to allocate memory for buffer"), ResourceError),
        (RuntimeError("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT"), IntegrityError),
        (ValueError(), IntegrityError),
        (UnsupportedError("the GPU refuses"), UnsupportedError),
    ],
)
def test_errors_of_engines_have_a_kind(error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught, translated("a.onnx", "ONNX Runtime cannot run"):
        raise error
    assert "\n" not in str(caught.value)


def split(pattern: str, behavior: str = "Isolated") -> dict[str, Any]:
    """A pre-tokenizer that looks like Qwen2's."""
    level = {"add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    steps = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False},
        {"type": "ByteLevel", **level},
    ]
    return {"type": "Sequence", "pretokenizers": steps}


PARTS: dict[str, dict[str, Any]] = {
    "truncation": {
        "truncation": {
            "direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 5,
        }
    },
    "padding": {
        "padding": {
            "strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "x",
        }
    },
    "many replacements": {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"} for _ in range(40)
            ],
        }
    },
    "a panic": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    "a template": {
        "post_processor": {
            "type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {},
        }
    },
    "no model": {"model": None},
    "another pattern": {"pre_tokenizer": split("(a+)+$")},
    "no pattern": {"pre_tokenizer": split("")},
    "text removed": {"pre_tokenizer": split(SPLIT, "Removed")},
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_a_tokenizer_that_we_do_not_write_are_refused(
    tiny: Bundle, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    tree = json.loads((tiny.folder / "tokenizer.json").read_bytes()) | PARTS[name]
    other = changed(tiny, "tokenizer.json", json.dumps(tree).encode(), listed=True)
    with pytest.raises(IntegrityError, match=r"as Qwen2's|another way than Qwen2"):
        open_frontend(other)
    assert capfd.readouterr().err == ""  # no panic was printed


def test_a_prefix_that_the_library_panics_at_is_refused(tiny: Bundle) -> None:
    tree = json.loads((tiny.folder / "tokenizer.json").read_bytes())
    tree["model"]["continuing_subword_prefix"] = "哈哈哈"
    other = changed(tiny, "tokenizer.json", json.dumps(tree).encode(), listed=True)
    with pytest.raises(IntegrityError, match="continuing_subword_prefix"):
        open_frontend(other)


def test_a_panic_while_text_is_tokenized_is_one_of_our_errors(tiny: Bundle) -> None:
    tokenizer = Tokenizer.from_file(str(tiny.folder / "tokenizer.json"))
    tokenizer.enable_truncation(2, stride=1)
    tokenizer.enable_truncation(1, stride=0)
    tree = json.loads(tokenizer.to_str())
    tree["truncation"]["stride"] = 5
    with pytest.raises(IntegrityError, match="not a readable tokenizer"):
        Frontend(Tokenizer.from_str(json.dumps(tree)), "<|end|>").ids("one two three four")
