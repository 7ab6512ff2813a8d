"""A bundle as a model of NVIDIA's Triton Inference Server: a folder of its model repository."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import edgepack
from edgepack import discovery
from edgepack.bundle.bundle import MANIFEST, Bundle, open_bundle
from edgepack.errors import UsageError
from edgepack.files.atomic import replacing

CONFIG = "config.pbtxt"
_OWN = "# Written by edgepack"

# The dynamic batcher is there for its bounded queue: a batch is one request. What waits longer than
# a minute is refused.
_TEMPLATE = """\
{own} {version}: `edgepack export triton`.
name: {name}
backend: "python"
max_batch_size: 1
model_transaction_policy {{ decoupled: true }}
dynamic_batching {{
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: 60000000
    max_queue_size: {waiting}
  }}
}}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
input [
  {{ name: "text_input" data_type: TYPE_STRING dims: [ 1 ] }},
  {{ name: "voice" data_type: TYPE_STRING dims: [ 1 ] optional: true }},
  {{ name: "seed" data_type: TYPE_INT64 dims: [ 1 ] optional: true }}
]
output [
  {{ name: "audio" data_type: TYPE_FP32 dims: [ -1 ] }},
  {{ name: "sample_rate" data_type: TYPE_INT32 dims: [ 1 ] }}
]
{parameters}
"""


@dataclass(frozen=True)
class TritonOptions:
    """How Triton is to run a bundle.

    `runtime` None is the bundle's first, `threads` None those of the machine that it runs on.
    `waiting` requests are queued at most.
    """

    runtime: str | None = None
    threads: int | None = None
    waiting: int = 8


def export(bundle: Bundle, repository: Path, options: TritonOptions) -> Path:
    """Write the model into a repository, in place of an earlier export; gives its folder.

    Its name is that of the bundle's folder. Raises UsageError if something else is in its place, or
    the bundle has no such runtime.
    """
    runtime = options.runtime or bundle.runtimes()[0]
    if runtime not in bundle.runtimes():
        unknown = discovery.unknown("runtime", runtime, bundle.runtimes())
        raise UsageError(f"{bundle.folder}: {unknown}")
    model = repository / bundle.folder.resolve().name
    _require_ours(model)
    with replacing(model) as new:
        (new / CONFIG).write_text(_config(model.name, bundle, runtime, options), "utf-8")
        extras = ",".join(bundle.engines(runtime))
        needed = f"edgepack[{extras}]=={edgepack.__version__}\n"
        (new / "requirements.txt").write_text(needed, "utf-8")
        version = new / "1"
        _copy(bundle, version / "bundle")
        shutil.copyfile(Path(__file__).with_name("triton_model.py"), version / "model.py")
    return model


def _require_ours(model: Path) -> None:
    """Raise UsageError if something is in the place that is no earlier export."""
    config = model / CONFIG
    ours = config.is_file() and config.read_text("utf-8", "replace").startswith(_OWN)
    if model.exists() and not ours:
        raise UsageError(f"{model}: there is something else; give another repository with -o")


def _config(name: str, bundle: Bundle, runtime: str, options: TritonOptions) -> str:
    given = {"format": runtime}
    if options.threads is not None:
        given["threads"] = str(options.threads)
    parameters = "\n".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
        for key, value in given.items()
    )
    return _TEMPLATE.format(
        own=_OWN,
        version=edgepack.__version__,
        name=json.dumps(name, ensure_ascii=False),
        waiting=options.waiting,
        parameters=parameters,
    )


def _copy(bundle: Bundle, folder: Path) -> None:
    """Copy the files of a bundle, and read the copy as it is read when it is loaded."""
    sources = {MANIFEST: bundle.folder / MANIFEST}
    sources |= {name: bundle.path(name) for name in bundle.manifest.files}
    for name, source in sources.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)
    copied = open_bundle(folder)
    copied.check(copied.manifest.files)
