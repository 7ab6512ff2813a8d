"""WeTextProcessing grammars (two finite-state transducers each), run by kaldifst."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepack.errors import IntegrityError, UnsupportedError
from edgepack.runtime.normalization import Normalize
from edgepack.runtime.normalizers._wfst_grammar import ORDERS, grammar
from edgepack.runtime.normalizers._wfst_trial import check


@dataclass(frozen=True)
class _Wfst:
    def open(self, locale: str, files: Sequence[Path]) -> Normalize:
        """A grammar from its tagger and its verbaliser file, in this order, known or tried."""
        try:
            importlib.import_module("kaldifst")
        except ImportError:
            raise UnsupportedError("kaldifst is not installed; pip install kaldifst") from None
        if locale not in ORDERS:
            raise UnsupportedError(f"no grammar rules for {locale!r}; known: {', '.join(ORDERS)}")
        if len(files) != 2:
            raise IntegrityError(f"a grammar is a tagger and a verbaliser, not {len(files)} files")
        check(locale, files)
        return grammar(locale, files)


NORMALIZER = _Wfst()
