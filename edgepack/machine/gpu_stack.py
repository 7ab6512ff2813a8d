"""The GPU software of a machine (JetPack, TensorRT, CUDA), its GPU, and whether they fit.

Source of the paths: NVIDIA's L4T file system; of the table of releases: the target's profile.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgepack.bundle.manifest import Release
from edgepack.machine.probe import Machine, UnusableError

_RELEASE = "/etc/nv_tegra_release"
_TENSORRT = "/usr/lib/*/libnvinfer.so.*"
_CUDA_JSON, _CUDA_TEXT = "/usr/local/cuda/version.json", "/usr/local/cuda/version.txt"
_COMPATIBLE = "/proc/device-tree/compatible"
# Compute capability of the modules, by the name of their chip in the device tree.
_CHIPS = {"tegra210": "sm_53", "tegra186": "sm_62", "tegra194": "sm_72", "tegra234": "sm_87",
          "tegra264": "sm_110"}  # fmt: skip


@dataclass(frozen=True)
class Stack:
    """Versions, "" for what is not there: `l4t` is a Jetson's, `gpu` such as sm_87."""

    l4t: str = ""
    tensorrt: str = ""
    cuda: str = ""
    gpu: str = ""
    onnxruntime: str = ""

    @property
    def jetson(self) -> bool:
        """Whether this is a Jetson."""
        return bool(self.l4t)


def read(machine: Machine, onnxruntime: str) -> Stack:
    """The versions found on a machine, with that of ONNX Runtime, which is given."""
    return Stack(_l4t(machine), _tensorrt(machine), _cuda(machine), _gpu(machine), onnxruntime)


def problems(stack: Stack, releases: Sequence[Release], architecture: str) -> list[str]:
    """What does not fit together, one line for each problem, with what to do."""
    found = []
    if architecture and stack.gpu and stack.gpu != architecture:
        found.append(
            f"this GPU is {stack.gpu}, the bundle is for {architecture}; "
            "build it for this device's --target"
        )
    if not releases:
        return found
    known = ", ".join(f"{r.jetpack} (L4T {r.l4t})" for r in releases)
    if not stack.jetson:
        return [*found, f"this is no Jetson ({_RELEASE} is missing); the bundle is for "
                f"JetPack {known}"]  # fmt: skip
    release = next((r for r in releases if same(stack.l4t, r.l4t)), None)
    if release is None:
        return [*found, f"L4T {stack.l4t} is not of a JetPack that the bundle is for: {known}; "
                "install one of these, or build for another --target"]  # fmt: skip
    here = f"JetPack {release.jetpack} (L4T {stack.l4t})"
    if not stack.tensorrt:
        found.append(f"{here}: TensorRT {release.tensorrt} is missing; apt install nvidia-tensorrt")
    elif not same(stack.tensorrt, release.tensorrt):
        found.append(
            f"{here} comes with TensorRT {release.tensorrt}, found {stack.tensorrt}; "
            "install the packages of this JetPack"
        )
    if stack.cuda and not same(stack.cuda, release.cuda):
        found.append(
            f"{here} comes with CUDA {release.cuda}, found {stack.cuda}; "
            "install the packages of this JetPack"
        )
    if version(stack.onnxruntime) < version(release.onnxruntime):
        found.append(
            f"ONNX Runtime {stack.onnxruntime} was not made for TensorRT {release.tensorrt}; "
            f"{here} needs {release.onnxruntime} or newer, built for it"
        )
    return found


def version(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: (1, 18, 0) of "1.18.0+cu126"."""
    head = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, head[0].split("."))) if head else ()


def same(found: str, wanted: str) -> bool:
    """Whether a version belongs to a release, as "10.3.0" and "10.3.0.30" belong to "10.3"."""
    length = len(version(wanted))
    return version(found)[:length] == version(wanted)


def _l4t(machine: Machine) -> str:
    """Version of L4T, such as 36.4.3 for "# R36 (release), REVISION: 4.3, …"."""
    text = _text(machine, _RELEASE)
    head = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"{head[1]}.{head[2]}" if head else ""


def _tensorrt(machine: Machine) -> str:
    """The version in the library's full file name."""
    names = [path.name.removeprefix("libnvinfer.so.") for path in machine.paths(_TENSORRT)]
    return max(names, key=lambda name: (name.count("."), version(name)), default="")


def _cuda(machine: Machine) -> str:
    try:
        listed = json.loads(_text(machine, _CUDA_JSON) or "{}")
        return str(listed["cuda"]["version"])
    except (ValueError, KeyError, TypeError):
        found = re.search(r"CUDA Version ([\d.]+)", _text(machine, _CUDA_TEXT))
        return found[1] if found else ""


def _gpu(machine: Machine) -> str:
    """Compute capability: of a Jetson by its chip, otherwise by NVML if that is installed."""
    compatible = _text(machine, _COMPATIBLE)
    for chip, capability in _CHIPS.items():
        if chip in compatible:
            return capability
    return _capability_of_board()


def _capability_of_board() -> str:
    try:
        import pynvml
    except ImportError:
        return ""
    try:
        pynvml.nvmlInit()
        board = pynvml.nvmlDeviceGetHandleByIndex(0)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(board)
    except pynvml.NVMLError:
        return ""
    return f"sm_{major}{minor}"


def _text(machine: Machine, path: str) -> str:
    try:
        return machine.text(path) or ""
    except UnusableError:
        return ""
