"""The real Qwen2 tokenizer with CosyVoice2's own tokens, whole and trimmed."""

from collections.abc import Callable
from functools import cache

import pytest
import random_checkpoint
import random_configuration
from tokenizers import Tokenizer

from edgepack.checkpoint.folder import Checkpoint
from edgepack.families.cosyvoice2 import FAMILY
from edgepack.trim.alphabet import alphabet
from edgepack.trim.tokenizer import Trimmed, trim
from edgepack.trim.vocabulary import Units

Trim = Callable[[tuple[str, ...]], tuple[Trimmed, Tokenizer]]


@pytest.fixture(scope="session")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tokenizer of a full-size checkpoint, as JSON."""
    folder = tmp_path_factory.mktemp("qwen2")
    random_checkpoint.text_files(folder, random_configuration.Size(), random_checkpoint.QWEN2)
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
