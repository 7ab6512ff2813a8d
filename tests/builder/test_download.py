"""Checkpoints by name, from a stand-in of both hubs, with their libraries in this process."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import huggingface_hub.constants
import pytest
from hubs import COMMIT, OLDER, REPOSITORY, STRAYS, StandIn, stand_in
from support import DATA

from edgepack import discovery
from edgepack.builder import model_hub
from edgepack.builder.download import Downloaded, _download
from edgepack.builder.model_hub import Listing, ModelHub, Reference, parse
from edgepack.builder.planning import open_source
from edgepack.errors import IntegrityError, ResourceError, UnsupportedError, UsageError
from edgepack.report import silent

SOURCE = DATA / "checkpoints" / "cosyvoice2-s2"
NEEDED = set(open_source(str(SOURCE)).hashes)
BY_NAME = {"huggingface": REPOSITORY, "modelscope": f"modelscope:{REPOSITORY}"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Both hubs for the libraries in this process, and empty caches of theirs."""
    found = stand_in(SOURCE)
    constants = huggingface_hub.constants
    template = found.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", found.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr("modelscope_hub._legacy_api.REPO_TREE_PAGE_MAX_ATTEMPTS", 1)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", found.address)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("MODELSCOPE_DOWNLOAD_INTRA_CLOUD", "false")
    yield found
    found.close()


def download(name: str, llm: str | None = None) -> Downloaded:
    reference = parse(name)
    assert reference
    return _download(reference, llm, silent)


@pytest.mark.parametrize(
    ("model", "reference"),
    [
        ("A/B", Reference("huggingface", "A/B", None)),
        ("A/B@main", Reference("huggingface", "A/B", "main")),
        ("A-1/B_2.0@refs/pr/3", Reference("huggingface", "A-1/B_2.0", "refs/pr/3")),
        ("huggingface:A/B", Reference("huggingface", "A/B", None)),
        ("modelscope:iic/B@v1", Reference("modelscope", "iic/B", "v1")),
        ("folder/inside", None),
        ("./A/B", None),
        ("../B", None),
        ("A/..B", None),
        ("/A/B", None),
        ("A/B/C", None),
        ("A/", None),
        ("A", None),
        ("", None),
        ("C:/models/B", None),
        ("A/B\0", None),
    ],
)
def test_a_name_is_told_from_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, reference: Reference | None
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder/inside").mkdir(parents=True)
    assert parse(model) == reference


@pytest.mark.parametrize(
    "model",
    ["A/B@", "A/B@../x", "A/B@a b", "A/B@/x", "A/B..C", "modelscope:A", "modelscope:", "other:A/B"],
)
def test_what_looks_like_a_name_and_is_none_is_refused(model: str) -> None:
    with pytest.raises(UsageError):
        parse(model)


@pytest.mark.parametrize("name", BY_NAME)
def test_what_a_build_needs_is_downloaded_once(hub: StandIn, name: str) -> None:
    found = download(BY_NAME[name])
    assert sorted(hub.downloaded) == sorted(NEEDED)  # each once, none of the strays
    assert set(STRAYS) < set(hub.files)
    assert found.origin.revision == (COMMIT if name == "huggingface" else "master")
    assert not found.notes
    assert open_source(str(found.folder)).hashes == open_source(str(SOURCE)).hashes
    del hub.asked[:]
    assert download(BY_NAME[name]) == found
    assert hub.downloaded == []


@pytest.mark.parametrize("name", BY_NAME)
def test_a_revision_is_what_was_asked_for(hub: StandIn, name: str) -> None:
    asked = download(f"{BY_NAME[name]}@v2.0").origin
    assert asked.revision == (OLDER if name == "huggingface" else "v2.0")
    with pytest.raises(UsageError, match=f"{REPOSITORY}: .*no revision 'gone'"):
        download(f"{BY_NAME[name]}@gone")


@pytest.mark.parametrize("name", discovery.names(model_hub.PACKAGE))
def test_a_download_that_breaks_off_goes_on_where_it_did(hub: StandIn, name: str) -> None:
    hub.breaks["llm.pt"] = 20_000
    size = len(hub.files["llm.pt"])
    told: list[int] = []
    one = cast(ModelHub, discovery.load(model_hub.PACKAGE, name, "HUB"))
    path = one.fetch(REPOSITORY, Listing(COMMIT, {"llm.pt": size}), "llm.pt", told.append)
    assert path.read_bytes() == hub.files["llm.pt"]
    assert sum(told) == size
    ranges = [asked.range for asked in hub.asked if asked.method == "GET" and asked.file]
    assert ranges == ["", "bytes=20000-"]


def test_other_weights_are_downloaded_in_place_of_the_usual(hub: StandIn) -> None:
    download(REPOSITORY, "llm.rl.pt")
    assert set(hub.downloaded) == NEEDED - {"llm.pt"} | {"llm.rl.pt"}
    for wrong in ("llm.gone.pt", "../llm.pt"):
        with pytest.raises(UsageError, match=wrong):
            download(REPOSITORY, wrong)


def test_of_two_containers_one_is_downloaded(hub: StandIn) -> None:
    hub.files["flow.safetensors"] = b"not read, as there is a flow.pt"
    download(REPOSITORY)
    assert set(hub.downloaded) == NEEDED


def test_what_is_no_checkpoint_of_ours_is_not_downloaded(hub: StandIn) -> None:
    hub.files["cosyvoice3.yaml"] = b"llm: !new:cosyvoice.llm.llm.CosyVoice3LM\n  x: 1\n"
    with pytest.raises(UnsupportedError, match="networks of another model"):
        download(REPOSITORY)
    assert hub.downloaded == ["cosyvoice3.yaml"]
    del hub.files["cosyvoice3.yaml"], hub.files["flow.pt"]
    with pytest.raises(UsageError, match=r"has no flow\.pt"):
        download(REPOSITORY)
    hub.files["cosyvoice2.yaml"] = b"a: !apply:os.system [ls]"
    with pytest.raises(IntegrityError):
        download(f"{REPOSITORY}@v2.0")
    del hub.files["cosyvoice2.yaml"]
    with pytest.raises(UsageError, match="not a CosyVoice checkpoint"):
        download(REPOSITORY)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("nobody/nothing", "nobody/nothing: no such folder, and no such repository at Hugging"),
        ("modelscope:nobody/nothing", "nobody/nothing: no such repository at ModelScope"),
        ("FunAudioLLM/Gated", "FunAudioLLM/Gated: who wants it has to ask for it"),
        ("modelscope:FunAudioLLM/Gated", "FunAudioLLM/Gated: may not be read"),
    ],
)
def test_what_may_not_be_downloaded_says_why(hub: StandIn, model: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        download(model)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_hub_that_does_not_answer_leaves_the_cache(hub: StandIn, name: str) -> None:
    model = BY_NAME[name]
    if name == "huggingface":  # the other library asks for longer
        hub.status = 503
        with pytest.raises(ResourceError, match=r"answered 503, and it is not in the cache"):
            download(model)
        hub.status = 200
    found = download(model)
    hub.close()
    huggingface_hub.close_session()  # a connection that is kept would still be answered
    (note,) = download(model).notes
    assert note.startswith(f"{name}:{REPOSITORY}: ")
    assert note.endswith(f"; taken from the cache, at {found.origin.revision}")
    with pytest.raises(ResourceError, match=r"does not answer .*, and it is not in the cache"):
        download(f"{model}@v2.0")


def test_offline_mode_asks_nothing(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    found = download(REPOSITORY)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    del hub.asked[:]
    cached = download(REPOSITORY)
    assert (cached.folder, cached.origin) == (found.folder, found.origin)
    assert f"HF_HUB_OFFLINE is set; taken from the cache, at {COMMIT}" in cached.notes[0]
    (found.folder / "flow.pt").unlink()
    with pytest.raises(ResourceError, match=r"HF_HUB_OFFLINE is set, and .* has no flow\.pt"):
        download(REPOSITORY)
    assert hub.asked == []
    huggingface_hub.close_session()


def test_nothing_is_told_of_this_machine(hub: StandIn, tmp_path: Path) -> None:
    for name in BY_NAME.values():
        download(name)
    assert not [asked.path for asked in hub.asked if REPOSITORY not in asked.path]
    agents = [asked.agent for asked in hub.asked]
    assert not [agent for agent in agents if "torch" in agent or "agent/" in agent]
    sessions = {agent.split("session_id/")[1] for agent in agents if "session_id/" in agent}
    assert len(sessions) > 1  # made up each time
    assert not (tmp_path / "config" / "credentials" / "session").exists()
