"""What a trimmed bundle knows of the tokens and the text that it was trimmed for."""

import numpy as np

from edgepack.bundle import arrays
from edgepack.bundle.bundle import Bundle
from edgepack.errors import IntegrityError
from edgepack.runtime.text.coverage import Coverage, from_text
from edgepack.runtime.text.front_end import Frontend


def kept_rows(bundle: Bundle) -> list[int]:
    """The original id of each text token of a trimmed bundle, ascending; empty for others."""
    trim = bundle.manifest.trim
    if trim is None:
        return []
    path = bundle.path(trim.rows)
    rows = arrays.parse(bundle.read(trim.rows), path, "a list of rows").get("rows")
    if (
        rows is None
        or arrays.mismatch({"rows": rows}, {"rows": ("i", (trim.rows_after,))})
        or not arrays.within(rows, trim.rows_before)
        or (np.diff(rows) <= 0).any()
    ):
        raise IntegrityError(f"{path}: not a list of {trim.rows_after} ascending rows")
    return [int(row) for row in rows]


def open_coverage(bundle: Bundle, frontend: Frontend) -> Coverage | None:
    """Which text the bundle's tokenizer was trimmed for; None if it was not trimmed."""
    trim = bundle.manifest.trim
    if trim is None:
        return None
    special = [token.content for token in frontend.tokenizer.get_added_tokens_decoder().values()]
    return Coverage(from_text(trim.alphabet), frozenset(trim.words), special)
