"""The real Qwen2 tokenizer with CosyVoice2's own tokens, whole and trimmed."""

from collections.abc import Callable
from functools import cache

import pytest
import random_configuration
import random_cosyvoice2
from tokenizers import Tokenizer

from edgepack.builder.trim.alphabet import alphabet
from edgepack.builder.trim.bpe import Trimmed, trim
from edgepack.builder.trim.vocabulary import Units
from edgepack.model.checkpoint.folder import Checkpoint
from edgepack.model.families.cosyvoice2 import FAMILY

Trim = Callable[[tuple[str, ...]], tuple[Trimmed, Tokenizer]]


@pytest.fixture(scope="session")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tokenizer of a full-size checkpoint, as JSON."""
    folder = tmp_path_factory.mktemp("qwen2")
    random_cosyvoice2.text_files(folder, random_configuration.Size(), random_cosyvoice2.QWEN2)
    return FAMILY.tokenizer(Checkpoint(folder, "cosyvoice2.yaml"))


@pytest.fixture(scope="session")
def whole(qwen2: str) -> Tokenizer:
    """That tokenizer, loaded."""
    return Tokenizer.from_str(qwen2)


@pytest.fixture(scope="session")
def trimmed(qwen2: str) -> Trim:
    """That tokenizer trimmed to languages; each set of them is trimmed once."""

    @cache
    def make(codes: tuple[str, ...]) -> tuple[Trimmed, Tokenizer]:
        result = trim(qwen2, Units(alphabet(codes)))
        return result, Tokenizer.from_str(result.tokenizer)

    return make
