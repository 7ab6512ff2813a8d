"""Languages: one YAML file each, found by its file name, and a set of sentences for each.

A language is described by its scripts and not by a word list; `scripts` are values of the Unicode
property Script.
"""

from importlib import resources
from importlib.resources.abc import Traversable

import msgspec

from edgepack import discovery
from edgepack.errors import UsageError

ALL = "all"


class Language(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A language: its scripts, and how its numbers, dates and units are read aloud.

    `normalizer` is a module of `runtime.text.normalizers`, and `locale` what it is opened with.
    `also` are other names that people use for it: the one in the language itself, or the code of a
    country.
    """

    name: str
    scripts: list[str]
    normalizer: str
    locale: str
    also: list[str] = []


def _folder(name: str) -> Traversable:
    return resources.files("edgepack.profiles") / name


def codes() -> list[str]:
    """Codes of all languages, sorted."""
    files = (entry.name for entry in _folder("languages").iterdir())
    return sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))


def load(code: str) -> Language:
    """The language of a code; raises UsageError for an unknown one."""
    import yaml  # not at the top: a device needs sentences but no YAML

    if code not in codes():
        languages = {known: load(known) for known in codes()}
        names = {known: " ".join([one.name, *one.also]) for known, one in languages.items()}
        raise UsageError(discovery.unknown("language", code, [*codes(), ALL], names))
    text = (_folder("languages") / f"{code}.yaml").read_text("utf-8")
    return msgspec.convert(yaml.safe_load(text), Language)


def preferred() -> tuple[str, ...]:
    """Codes of all languages; first come those that the original's text rules are made for."""
    first = ("zh", "en")
    return (*first, *(code for code in codes() if code not in first))


def parse(value: str) -> tuple[str, ...]:
    """Codes of "zh" or "zh,en", none for "all"; raises UsageError for an unknown code."""
    chosen = tuple(dict.fromkeys(code.strip() for code in value.split(",") if code.strip()))
    if chosen == (ALL,):
        return ()
    if not chosen or ALL in chosen:
        raise UsageError(f"languages {value!r}: give codes such as zh or zh,en, or all alone")
    for code in chosen:
        load(code)
    return chosen


def sentences(code: str) -> list[str]:
    """Sentences in a language, in a fixed order."""
    text = (_folder("calibration_data") / code / "sentences.txt").read_text("utf-8")
    return text.splitlines()
