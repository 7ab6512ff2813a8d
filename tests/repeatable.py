"""Hypothesis with the same examples in every run."""

from hypothesis import settings

repeatable = settings(derandomize=True, deadline=None, database=None)
