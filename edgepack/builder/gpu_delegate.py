"""What TensorFlow's analyzer says of `.tflite` files: would LiteRT's GPU delegate run them?

The analyzer does not check files and crashes on a faulty one, so it runs in a process of its own.
That of TensorFlow 2.21 calls every file compatible, without looking at any operator
(https://github.com/tensorflow/tensorflow/issues/77042). So it also gets a control network that the
delegate cannot run: if it finds nothing in that, its answers about others are worth nothing.
"""

import contextlib
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgepack.bundle.bundle import Bundle
from edgepack.errors import UnsupportedError
from edgepack.process.isolation import Bounds, isolated
from edgepack.report import Step
from edgepack.runtime.engines.installed import importable

_PACKAGE = "tensorflow"
_SUFFIX = ".tflite"
_MEMORY, _MEMORY_A_BYTE = 8 << 30, 4  # address space; TensorFlow alone maps 2 GB
_SECONDS = 120
_WRITTEN = 1 << 20  # TensorFlow looks for a folder that it can write to
_OPERATOR = re.compile(r"^  Op#\d+ ", re.MULTILINE)
_WARNING = re.compile(r"^GPU COMPATIBILITY WARNING: (?!Subgraph#)(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Network:
    """A file: the number of its operators, and the analyzer's warnings with their counts."""

    operators: int
    warnings: Mapping[str, int]


@dataclass(frozen=True)
class Analysis:
    """`networks` by file; `tensorflow` is its version, None if nothing was analysed.

    `reason` is why there is no answer. Then `networks` is empty, or `checked` is False, which means
    that `warnings` cannot be relied on.
    """

    tensorflow: str | None = None
    checked: bool = False
    reason: str | None = None
    networks: Mapping[str, Network] = field(default_factory=dict)


def analyse(bundle: Bundle, step: Step) -> Analysis | None:
    """The analysis of a bundle's files, None if it has none of that kind.

    Raises IntegrityError if a file is not as it was written, or the analyzer crashes over it.
    """
    names = sorted(name for name in bundle.manifest.files if name.endswith(_SUFFIX))
    if not names:
        return None
    if not importable(_PACKAGE):
        return Analysis(reason=f"{_PACKAGE} is not installed; pip install 'edgepack[{_PACKAGE}]'")
    step("TensorFlow's analyzer reads its .tflite files")
    bundle.check(names)
    size = sum(bundle.manifest.files[name].bytes for name in names)
    bounds = Bounds(bundle.folder, _MEMORY + _MEMORY_A_BYTE * size, _SECONDS, _WRITTEN)
    try:
        version, control, *texts = isolated(
            _texts, [bundle.path(name) for name in names], step=step, bounds=bounds
        )
    except UnsupportedError as error:  # no such process on this system
        return Analysis(reason=str(error))
    networks = dict(zip(names, map(read, texts), strict=True))
    if read(control).warnings:
        return Analysis(version, True, None, networks)
    return Analysis(
        version,
        False,
        f"the analyzer of TensorFlow {version} looks at no operator: it calls TOPK_V2 compatible, "
        "which the delegate does not have",
        networks,
    )


def read(text: str) -> Network:
    """The result for a file, parsed from the analyzer's output."""
    warnings = ("".join(filter(str.isprintable, found)) for found in _WARNING.findall(text))
    return Network(len(_OPERATOR.findall(text)), dict(Counter(warnings)))


def _texts(files: Sequence[Path], step: Step) -> list[str]:
    """TensorFlow's version, and what its analyzer prints of the control and of each file."""
    import tensorflow

    best = tensorflow.function(lambda x: tensorflow.math.top_k(x, 2).values)
    function = best.get_concrete_function(tensorflow.TensorSpec([4]))
    control = tensorflow.lite.TFLiteConverter.from_concrete_functions([function]).convert()
    sources = [{"model_content": control}, *({"model_path": str(file)} for file in files)]
    texts = [str(tensorflow.__version__)]
    for source in sources:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            tensorflow.lite.experimental.Analyzer.analyze(**source, gpu_compatibility=True)
        texts.append(printed.getvalue())
    return texts
