"""`tts.npz`."""

from edgepack.verification.vectors._whole import check

__all__ = ["check"]
