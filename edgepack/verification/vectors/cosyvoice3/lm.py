"""`lm.npz`."""

from edgepack.verification.reference import BundleUnderTest, Vectors
from edgepack.verification.vectors import _mixed_lm
from edgepack.verification.vectors.cosyvoice3._marked import marked


def check(v: Vectors, subject: BundleUnderTest) -> None:
    """Compare every array of the file."""
    _mixed_lm.check(v, marked(subject), opened=True)
