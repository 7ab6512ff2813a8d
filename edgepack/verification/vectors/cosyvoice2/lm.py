"""`lm.npz`."""

from edgepack.verification.vectors._mixed_lm import check

__all__ = ["check"]
