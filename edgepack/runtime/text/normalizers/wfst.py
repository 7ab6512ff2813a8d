"""WeTextProcessing grammars (two finite-state transducers each), run by kaldifst."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepack.errors import IntegrityError, UnsupportedError
from edgepack.runtime.engines.installed import imported
from edgepack.runtime.text.normalization import Normalize
from edgepack.runtime.text.normalizers import _rules_en, _rules_zh
from edgepack.runtime.text.normalizers._rules import Rule, Ruled
from edgepack.runtime.text.normalizers._wfst_grammar import ORDERS, grammar
from edgepack.runtime.text.normalizers._wfst_trial import check

_RULES: Mapping[str, Sequence[Rule]] = {"zh": _rules_zh.RULES, "en": _rules_en.RULES}


@dataclass(frozen=True)
class _Wfst:
    def open(self, locale: str, files: Sequence[Path]) -> Normalize:
        """The grammar of a locale, with this language's correcting rules before it.

        The files are its tagger and its verbaliser, in this order, known or tried.
        """
        try:
            imported("kaldifst")
        except ModuleNotFoundError:
            raise UnsupportedError("kaldifst is not installed; pip install kaldifst") from None
        if locale not in ORDERS:
            raise UnsupportedError(f"no grammar rules for {locale!r}; known: {', '.join(ORDERS)}")
        if len(files) != 2:
            raise IntegrityError(f"a grammar is a tagger and a verbaliser, not {len(files)} files")
        check(locale, files)
        return Ruled(_RULES.get(locale, ()), grammar(locale, files))


NORMALIZER = _Wfst()
