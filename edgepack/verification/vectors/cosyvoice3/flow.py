"""`flow.npz`."""

from edgepack.verification.vectors._chunked_flow import check

__all__ = ["check"]
