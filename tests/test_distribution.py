"""What is given away: the source distribution, and the wheel that is built from it, not from here.

Folders of the package that are links in a checkout are real folders in both.
"""

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROFILES = "edgepack/profiles"
LINKED = ("targets", "calibration_data")

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Distribution:
    """The contents of both archives by path, and what in the first is neither file nor folder."""

    sdist: Files
    wheel: Files
    odd: list[str]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    """Both archives of this checkout; neither an index nor the working folder is needed."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    sources, odd = {}, []
    with tarfile.open(sdist) as archive:
        for member in archive:
            name = member.name.partition("/")[2]
            if (opened := archive.extractfile(member)) is not None and member.isreg():
                sources[name] = opened.read()
            elif not member.isdir():
                odd.append(name)
    with zipfile.ZipFile(wheel) as archive:
        installed = {name: archive.read(name) for name in archive.namelist()}
    return Distribution(sources, installed, odd)


def checkout() -> dict[str, bytes]:
    """The files of the package here, links followed."""
    return {
        str(path.relative_to(ROOT)): path.read_bytes()
        for folder, _, names in os.walk(ROOT / "edgepack", followlinks=True)
        for path in (Path(folder, name) for name in names)
        if "__pycache__" not in path.parts
    }


def package(files: Files) -> dict[str, bytes]:
    """Those of the package, without metadata."""
    return {name: data for name, data in files.items() if name.startswith("edgepack/")}


def test_both_have_the_package_and_its_bytes(built: Distribution) -> None:
    here = checkout()
    for given in (built.sdist, built.wheel):
        assert sorted(package(given)) == sorted(here)
        assert [name for name, data in package(given).items() if data != here[name]] == []


@pytest.mark.parametrize("name", LINKED)
def test_a_linked_folder_is_a_real_one_in_both(built: Distribution, name: str) -> None:
    link = ROOT / PROFILES / name
    assert link.is_symlink()
    assert link.readlink() == Path("../..", name)
    assert (ROOT / name).is_dir()
    assert not (ROOT / name).is_symlink()
    files = {
        str(path.relative_to(ROOT / name)) for path in (ROOT / name).rglob("*") if path.is_file()
    }
    assert files
    for given in (built.sdist, built.wheel):
        inside = f"{PROFILES}/{name}/"
        assert {path.removeprefix(inside) for path in given if path.startswith(inside)} == files


def test_they_have_nothing_else(built: Distribution) -> None:
    assert built.odd == []
    beside = {name for name in built.sdist if not name.startswith("edgepack/")}
    assert beside - {".gitignore"} == {
        "CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"
    }  # fmt: skip
    tops = {name.partition("/")[0] for name in built.wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"edgepack"}
    for path in ("LICENSE", "edgepack/model/checkpoint/whisper/LICENSE"):
        licences = [name for name in built.wheel if name.endswith(f".dist-info/licenses/{path}")]
        assert [built.wheel[name] for name in licences] == [(ROOT / path).read_bytes()], path


def test_the_data_is_where_the_package_looks_for_it(built: Distribution) -> None:
    languages = [path.stem for path in (ROOT / PROFILES / "languages").glob("*.yaml")]
    assert len(languages) >= 10
    wanted = {
        *(f"{PROFILES}/languages/{code}.yaml" for code in languages),
        *(f"{PROFILES}/calibration_data/{code}/sentences.txt" for code in languages),
        *(f"{PROFILES}/recipes/{runtime}.yaml" for runtime in ("openvino", "ort", "tflite")),
        f"{PROFILES}/targets/intel-cpu.yaml",
        f"{PROFILES}/targets/jetson-orin.yaml",
        f"{PROFILES}/standard_gates.yaml",
        "edgepack/demo_voice/llm.pt",
        "edgepack/demo_voice/MODEL_CARD.md",
        "edgepack/model/checkpoint/whisper/multilingual.tiktoken",
        "edgepack/model/checkpoint/whisper/LICENSE",
        *(f"edgepack/serve/page/{name}" for name in ("index.html", "page.js", "style.css")),
        "edgepack/py.typed",
    }
    for given in (built.sdist, built.wheel):
        assert wanted - set(given) == set()
