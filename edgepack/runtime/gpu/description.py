"""`trt.json`: how the networks of a bundle run on a GPU, and on which releases of its software.

Options are those of ONNX Runtime's execution providers, by their own names. There is no engine in
a bundle: an engine is for one GPU and one TensorRT, and is built on the device.
"""

import json
from pathlib import Path

import msgspec

from edgepack.bundle import Bundle
from edgepack.errors import IntegrityError
from edgepack.manifest import Release, Struct

FILE = "trt.json"
SCHEMA = "edgepack.trt/1"
CACHE = "{cache}"  # stands for the folder of engines on the device


class StageOnGpu(Struct, frozen=True):
    """A network: the provider it is promised to run on, and each provider's options.

    `model` stands for the bytes of its files. `fp16_nodes` and `fp32_nodes` count what computes
    with floats; which ones stay fp32 and why is in the file `islands`, if there is one.
    """

    provider: str
    files: tuple[str, ...]
    model: str
    precision: str
    fp16_nodes: int
    fp32_nodes: int
    islands: str
    options: dict[str, dict[str, str]]


class Description(Struct, frozen=True):
    """A bundle's way on a GPU of one architecture, such as sm_87; none is any.

    `releases` are those of JetPack that it is for, none for machines that are no Jetson.
    """

    schema: str
    architecture: str
    releases: tuple[Release, ...]
    stages: dict[str, StageOnGpu]


def encode(description: Description) -> bytes:
    """Its bytes in a bundle."""
    tree = msgspec.to_builtins(description)
    return (json.dumps(tree, indent=1, ensure_ascii=False) + "\n").encode()


def read(bundle: Bundle) -> Description | None:
    """A bundle's description, or None; raises IntegrityError if the file is not one."""
    if FILE not in bundle.manifest.files:
        return None
    bundle.check([FILE])
    return parse(bundle.path(FILE))


def parse(path: Path) -> Description:
    """A description from its file."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Description)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise IntegrityError(f"{path}: not a description of GPU use ({error})") from None
    if found.schema != SCHEMA:
        raise IntegrityError(f"{path}: schema {found.schema!r}, this edgepack reads {SCHEMA!r}")
    return found
