"""Small files that would take a machine down: each is refused at once, in little memory."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bounded import refused_within, within
from safetensors.numpy import save_file
from support import DATA

from edgepack.builder.choices import read_choices
from edgepack.errors import EdgepackError, IntegrityError, UsageError
from edgepack.model.checkpoint import safetensors, tokenizer, torch_zip, yaml
from edgepack.model.checkpoint.folder import Checkpoint, open_checkpoint
from edgepack.model.families.cosyvoice2 import FAMILY

SOURCE = DATA / "checkpoints" / "cosyvoice2-s2"
QWEN = "CosyVoice-BlankEN"


def written(folder: Path, text: str) -> Path:
    path = folder / "cosyvoice2.yaml"
    path.write_text(text, "utf-8")
    return path


def chain(form: str, first: str = "a0: 1") -> str:
    """Lines of which each refers to the one before."""
    return "\n".join([first, *(f"a{i}: {form.replace('%', f'<a{i - 1}>')}" for i in range(1, 15))])


BOMBS = {
    "aliases": "a0: &a0 [1]\n"
    + "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)),
    "an alias to itself": "a: &a [*a]",
    "merge keys": "a: {<<: {b: 1}}",
    "merged aliases": "a: &a {b: 1}\nc:\n  <<: *a",
    "references to lists": chain("[!ref '%', !ref '%', !ref '%']"),
    "references to mappings": chain("{b: !ref '%', c: !ref '%', d: !ref '%'}"),
    "references in text": chain("!ref 'x%%%%'", "a0: text"),
    "long references": "b: " + "x" * 4000 + "\na: !ref '" + "<b>" * 5_000 + "'",
    "a list in text": "b: [1, 2]\na: !ref 'x<b>'",
    "products": chain("!ref '% * %'", "a0: 99999999"),
    "a deep chain": "\n".join(["a0: 1", *(f"a{i}: !ref '<a{i - 1}>'" for i in range(1, 1000))]),
    "digits": "a: " + "9" * 5000,
    "deep lists": "a: " + "[" * 15_000,
    "deep dashes": "- " * 15_000 + "1",
    "deep mappings": "".join(f"{' ' * i}a:\n" for i in range(150)),
    "deep questions": "? " * 15_000,
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_configuration_stays_small(tmp_path: Path, kind: str) -> None:
    refused_within(yaml.load, written(tmp_path, BOMBS[kind]), match=r"cosyvoice2\.yaml: ")


# Each of these took longer than in proportion to its length, or left as an exception of another.
ODD = {
    "base 60": "a: 1" + ":59" * 10_000,
    "base 60 fraction": "a: 1" + ":59" * 10_000 + ".5",
    "minus signs": "a: 1\nb: !ref '" + "-" * 30_000 + "<a>'",
    "parentheses": "a: 1\nb: !ref '" + "(" * 60 + "<a>" + ")" * 60 + "'",
    "not closed": "a: 1\nb: !ref '" + "(" * 99 + "'",
    "hexadecimal": "a: 0x" + "f" * 30_000,
    "octal": "a: 0" + "7" * 17,
    "power": "a: 9\nb: !ref '<a>**<a>**<a>**<a>'",
    "huge divided": "a: 1" + "0" * 17 + "\nb: !ref '<a> / 0." + "0" * 60 + "1'",
    "huge fraction": "a: 1e400\nb: !ref '<a> // 1'",
    "not a number": "a: 1e400\nb: !ref '<a> % 1'",
    "zero": "a: 0\nb: !ref '1 / <a>'",
    "a date": "a: 2001-99-99",
    "equals": "a: =",
    "brackets": "a: 1\nb: !ref '" + "<a" * 10_000 + "'",
    "a list as a key": "? [1]\n: 2",
    "a tag with a list as a key": "? !new:torch.x [1]\n: 2",
    "a reference as a key": "!ref <a>: 2",
    "a number as a key": "1: 2",
    "a key twice": "a: 1\na: 2",
    "beyond unicode": 'a: "\\UFFFFFFFF"',
    "half a pair": 'a: "\\uD800"',
    "a version": "%YAML 1." + "1" * 5000 + "\n---\na: 1",
    "tags": "%TAG !e! !new:\n---\na: !e!torch.x 1",
    "explicit type": "a: !!int 1:59",
    "binary": "a: !!binary x",
    "pairs": "a: !!pairs [[1]]",
    "two documents": "a: 1\n---\nb: 1",
    "nothing": "",
    "spaces": " " * 30_000,
    "keys": "? " + "a" * 30_000,
    "colons": ":" * 30_000,
    "quotes": '"' + '\\"' * 15_000,
    "commas": "a: [" + "a," * 15_000 + "]",
    "hashes": "#" * 30_000,
    "percent": "a: !new:%41%zz",
    "nul": "a: \0",
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_configuration_is_a_value_or_one_line(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, ODD[kind])
    with suppress(UsageError, IntegrityError):
        assert isinstance(within(yaml.load, path), dict)


def test_plain_scalars_are_those_of_the_core(tmp_path: Path) -> None:
    text = (
        "{a: 1e-6, b: -3, c: +2.5, d: .5, e: ~, f: True, g: 1:59, h: 0x1F, i: 010, j: 'no', k: no}"
    )
    assert yaml.load(written(tmp_path, text)) == {
        "a": 1e-6, "b": -3, "c": 2.5, "d": 0.5, "e": None, "f": True, "g": "1:59", "h": "0x1F",
        "i": 10, "j": "no", "k": "no",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["aliases", "an alias to itself", "merged aliases", "deep lists"])
def test_a_recipe_file_is_read_in_the_same_way(tmp_path: Path, kind: str) -> None:
    refused_within(read_choices, written(tmp_path, BOMBS[kind]), match=r"cosyvoice2\.yaml: ")


def test_a_recipe_file_of_any_size_is_not_read(tmp_path: Path) -> None:
    written(tmp_path, "").open("wb").truncate(1 << 40)
    path = tmp_path / "cosyvoice2.yaml"
    refused_within(read_choices, path, match="larger than 32 KiB", error=UsageError)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint whose files are links: replace them."""
    return Path(shutil.copytree(SOURCE, tmp_path / "model", copy_function=os.link))


def edited(folder: Path, name: str, old: str, new: str) -> Checkpoint:
    path = folder / name
    text = path.read_text("utf-8")
    assert old in text
    path.unlink()
    path.write_text(text.replace(old, new), "utf-8")
    return open_checkpoint(folder)


def everything(checkpoint: Checkpoint) -> None:
    FAMILY.host(checkpoint)
    for _ in FAMILY.graphs(checkpoint):
        pass


YAML, CONFIG = "cosyvoice2.yaml", f"{QWEN}/config.json"
SIZES = [
    (YAML, "nb_harmonics: 8", "nb_harmonics: 1000000000", IntegrityError),
    (YAML, "n_fft: 16", "n_fft: 60000", IntegrityError),
    (YAML, "base_channels: 48", "base_channels: 1000000000000", IntegrityError),
    (YAML, "rates: [8, 5, 3]", "rates: [60000, 60000, 60000]", IntegrityError),
    (YAML, "rates: [8, 5, 3]", f"rates: [{'2, ' * 10_000}2]", UsageError),
    (YAML, "rates: [8, 5, 3]", "rates: [True, 5, 3]", UsageError),
    (YAML, "rates: [8, 5, 3]", "rates: 0x" + "f" * 5000, UsageError),
    (YAML, "pre_lookahead_len: 3", "pre_lookahead_len: 1000000000", IntegrityError),
    (YAML, "\ntoken_mel_ratio: 2", "\ntoken_mel_ratio: 1000000000", IntegrityError),
    (YAML, "top_k: 25", "top_k: 1000000000000", IntegrityError),
    (YAML, "top_p: 0.8", "top_p: " + "9" * 400, IntegrityError),
    (YAML, "num_heads: 2", "num_heads: 1000000000", IntegrityError),
    (CONFIG, '"num_hidden_layers": 3', '"num_hidden_layers": 1000000000000', IntegrityError),
    (CONFIG, '"num_attention_heads": 6', '"num_attention_heads": 6000000000', IntegrityError),
    (CONFIG, '"vocab_size": 1216', '"vocab_size": 1000000000000', IntegrityError),
    (CONFIG, '"rms_norm_eps": 1e-06', '"rms_norm_eps": ' + "9" * 400, UsageError),
    (CONFIG, '"hidden_size": 48', '"hidden_size": ' + "9" * 400, IntegrityError),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "error"), SIZES, ids=[s[2][:24] for s in SIZES])
def test_sizes_are_bounded_before_a_graph_is_written(
    folder: Path, name: str, old: str, new: str, error: type[EdgepackError]
) -> None:
    checkpoint = edited(folder, name, old, new)
    refused_within(everything, checkpoint, match=r"\.yaml|config\.json", error=error)


REPLACE = {"type": "Replace", "pattern": {"Regex": "(.)"}, "content": "xx"}
TEMPLATE = {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}


def change(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(tree: Any) -> None:
        for step in path[:-1]:
            tree = tree[step]
        tree[path[-1]] = value

    return apply


PADDING = {
    "strategy": {"Fixed": 1 << 30}, "direction": "Right", "pad_to_multiple_of": None,
    "pad_id": 0, "pad_type_id": 0, "pad_token": "x",
}  # fmt: skip
TOKENIZERS = {
    "forty rules": change("normalizer", value={"type": "Sequence", "normalizers": [REPLACE] * 40}),
    "a rule": change("normalizer", value=REPLACE),
    "no normalizer": change("normalizer", value=None),
    "padding": change("padding", value=PADDING),
    "truncation": change("truncation", value={"max_length": 1}),
    "pattern": change("pre_tokenizer", "pretokenizers", 0, "pattern", "Regex", value="(a+)+$"),
    "more steps": change("pre_tokenizer", "pretokenizers", value=[]),
    "another step": change("pre_tokenizer", value={"type": "Whitespace"}),
    "a pattern of its own": change("pre_tokenizer", "pretokenizers", 1, "use_regex", value=True),
    "a template": change("post_processor", value=TEMPLATE),
    "decoder": change("decoder", value={"type": "Fuse"}),
    "another model": change("model", value={"type": "WordLevel", "vocab": {}, "unk_token": "x"}),
    "dropout": change("model", "dropout", value=0.5),
    "prefix": change("model", "continuing_subword_prefix", value="##"),
    "a negative id": change("model", "vocab", "a", value=-1),
    "a huge id": change("model", "vocab", "a", value=1 << 40),
    "another alphabet": change("model", "vocab", "中", value=900),
    "added tokens": change("added_tokens", value=[
        {"id": 900 + i, "content": str(i), "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True} for i in range(3000)
    ]),
    "a long added token": change("added_tokens", 0, "content", value="x" * 300),
    "unknown": change("more", value=1),
    "deep": change("normalizer", value=json.loads("[" * 500 + "]" * 500)),
}  # fmt: skip


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_only_one_kind_of_tokenizer_is_read(folder: Path, kind: str) -> None:
    path = folder / QWEN / "tokenizer.json"
    tree = json.loads(path.read_text("utf-8"))
    TOKENIZERS[kind](tree)
    path.unlink()
    path.write_text(json.dumps(tree), "utf-8")
    refused_within(FAMILY.tokenizer, open_checkpoint(folder), match=r"tokenizer\.json: ")


def test_no_part_of_a_tokenizer_is_hidden_by_another_of_its_name(folder: Path) -> None:
    path = folder / QWEN / "tokenizer.json"
    text = path.read_text("utf-8").rstrip().removesuffix("}")
    path.unlink()
    rule = json.dumps(REPLACE)
    for whole in (
        text.replace("{", '{"normalizer": ' + rule + ",", 1) + "}",
        text + ', "normalizer": ' + rule + "}",
    ):
        path.write_text(whole, "utf-8")
        refused_within(FAMILY.tokenizer, open_checkpoint(folder), match="Invalid value 'Replace'")


MANY = 900_000
LISTS = {
    "vocab.json": "{" + ",".join(f'"{i:x}":{i}' for i in range(MANY)) + "}",
    "merges.txt": "a b\n" * MANY,
    "tokenizer.json": '{"model":{"type":"BPE","merges":[' + ",".join(['["",""]'] * MANY) + "]}}",
    "tokenizer_config.json": json.dumps(
        {"added_tokens_decoder": {str(856 + i): {"content": f"<{i}>"} for i in range(3000)}}
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_vocabulary_has_as_many_tokens_as_one_has(folder: Path, name: str) -> None:
    (folder / QWEN / "tokenizer.json").unlink()
    (folder / QWEN / name).unlink(missing_ok=True)
    (folder / QWEN / name).write_text(LISTS[name])
    checkpoint, match = Checkpoint(folder, ""), name.partition(".")[0]
    refused_within(tokenizer.build, checkpoint, QWEN, [], 1 << 20, match=match)


@pytest.mark.parametrize("count", [2, 1 << 20])
def test_ids_of_a_vocabulary_are_its_own(folder: Path, count: int) -> None:
    (folder / QWEN / "tokenizer.json").unlink()
    path = folder / QWEN / "vocab.json"
    vocabulary = json.loads(path.read_text("utf-8"))
    path.unlink()
    path.write_text(json.dumps(vocabulary | {"b": vocabulary["a"]}))
    with pytest.raises(UsageError, match=r"vocab\.json: tokens .* have one id"):
        tokenizer.build(Checkpoint(folder, ""), QWEN, [], count)


def test_a_directory_of_a_million_entries_is_not_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as file:
        file.writestr("x/data.pkl", b"N.")
        for i in range(10_000):
            file.writestr(f"x/{i:0200}", b"")
    refused_within(torch_zip.load, tmp_path / "x.pt", match="directory of more than 2 MiB")


@pytest.mark.parametrize("header", [1 << 62, 50 << 20])
def test_a_header_of_any_size_is_not_read(tmp_path: Path, header: int) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(header.to_bytes(8, "little") + b"{")
    os.truncate(path, 60 << 20)
    refused_within(safetensors.load, path, match="a header of")


def test_numbers_that_are_complex_are_no_weights(tmp_path: Path) -> None:
    save_file({"a": np.ones(2, np.complex64)}, tmp_path / "x.safetensors")
    with pytest.raises(IntegrityError, match="dtype complex64"):
        safetensors.load(tmp_path / "x.safetensors")
