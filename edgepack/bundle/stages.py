"""What a network says about its stage: what it is for, how it is called, judged and kept.

A network of `model.networks` declares it, the manifest of a bundle repeats it, and everything that
treats one stage unlike another goes by it. No other module knows a stage by its name.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta

from edgepack.bundle.ranges import Struct, Word

# What a stage is for, such as text_table, speech_table, language_model, encoder, time_embedding,
# estimator, excitation or vocoder. Kinds of the host's loops say which they call, and with what
# (`bundle.host`). A bundle has one stage of each role.
Role = Word
ROLES: tuple[Role, ...] = (  # which most families have, and target profiles and recipes name
    "text_table",
    "speech_table",
    "language_model",
    "encoder",
    "time_embedding",
    "estimator",
    "excitation",
    "vocoder",
)

# How often a stage is called: `once` for each solver of a bundle, once an `utterance` (or a chunk
# of one), at each `step` of the solver, with equal shapes, or while each `token` is decoded.
Called = Literal["once", "utterance", "step", "token"]

# The part of `verification.gates` by whose metrics a stage is judged before its bundle is whole.
Judged = Literal["language_model", "flow", "vocoder"]

# What becomes of the memory that a call computes with: an engine may have it `kept` for the next
# call, or `released` after each, or `released_if_large`, where the network's files are: for a
# small one that is called several times in a row, releasing takes longer than it saves.
Memory = Literal["kept", "released", "released_if_large"]

TOLERANCE = 1e-4  # a relative error that fp32 kernels of another runtime stay below


class Use(Struct, frozen=True):
    """How a stage is used.

    `samples` is how many of its calls calibration keeps; large inputs are few. If `mapped`, files
    of floating-point weights are mapped into memory as they are, where an engine can, and not
    repacked: that suits weights of which each is read once a call. `tolerance` is the largest
    relative error of the self-test in fp32; those of other precisions are in proportion. `judged`
    is None for a stage that only speech of the whole bundle says anything of.
    """

    role: Role
    called: Called = "utterance"
    judged: Judged | None = None
    samples: Annotated[int, Meta(ge=1, le=1000)] = 8
    memory: Memory = "kept"
    mapped: bool = False
    tolerance: Annotated[float, Meta(gt=0.0, le=1.0)] = TOLERANCE


Declared = tuple[str, Use]  # the name of a stage, and its use


def of_role(uses: Mapping[str, Use], role: Role) -> str:
    """The name of the stage with a role; raises KeyError if there is none."""
    for name, use in uses.items():
        if use.role == role:
            return name
    raise KeyError(role)
