"""Making conversion to `.ort` reproducible: the same bytes every time.

ONNX Runtime's converter writes one table, of the argument types of kernels, in the order of a hash
map that is seeded with a memory address. The table is the last thing it writes and flatbuffers
grow to the front, so it lies before everything else: this module writes a new front with the
entries sorted and leaves the rest of the file as it is.
Source: onnxruntime/core/flatbuffers/schema/ort.fbs.
"""

import importlib
import mmap
import shutil
from pathlib import Path
from typing import Any

_ALIGNMENT = 16
_VERSION_SLOT, _MODEL_SLOT = 0, 1

# An operator, then per type string of its kernels the arguments that have it, as (kind, index).
_Entry = tuple[str, list[tuple[str, list[tuple[int, int]]]]]


def sort_kernel_types(path: Path) -> None:
    """Rewrite an `.ort` file with its table of kernel types in order."""
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        entries, version, model, start = _read(data)
        front, version_field, model_field = _front(sorted(entries))
        front += bytes((start - len(front)) % _ALIGNMENT)
        for field, position in ((version_field, version), (model_field, model)):
            offset = position - start + len(front) - field
            front[field : field + 4] = offset.to_bytes(4, "little")
        temporary = path.with_suffix(".sorted")
        with temporary.open("wb") as target:
            target.write(front)
            file.seek(start)
            shutil.copyfileobj(file, target, 1 << 24)
        data.close()
    temporary.replace(path)


def _schema(name: str) -> Any:
    """The generated module of one table; ONNX Runtime's tools put them on the import path."""
    importlib.import_module("onnxruntime.tools.ort_format_model")
    return importlib.import_module(f"ort_flatbuffers_py.fbs.{name}")


def _read(data: mmap.mmap) -> tuple[list[_Entry], int, int, int]:
    """The table's entries, and where version, model and the part to keep begin."""
    session = _schema("InferenceSession").InferenceSession.GetRootAs(data, 0)
    table = session._tab
    version, model = (
        table.Indirect(table.Pos + table.Offset(4 + 2 * slot))
        for slot in (_VERSION_SLOT, _MODEL_SLOT)
    )
    resolver = session.KernelTypeStrResolver()
    entries = []
    for i in range(resolver.OpKernelTypeStrArgsLength()):
        operator = resolver.OpKernelTypeStrArgs(i)
        kinds = []
        for j in range(operator.KernelTypeStrArgsLength()):
            kind = operator.KernelTypeStrArgs(j)
            arguments = [kind.Args(k) for k in range(kind.ArgsLength())]
            pairs = [(argument.ArgType(), argument.Index()) for argument in arguments]
            kinds.append((kind.KernelTypeStr().decode(), pairs))
        entries.append((operator.OpId().decode(), sorted(kinds)))
    # A table's field list lies right before it, unless it is shared with one further on.
    fields = model - int.from_bytes(data[model : model + 4], "little", signed=True)
    return entries, version, model, min(model, fields)


def _front(entries: list[_Entry]) -> tuple[bytearray, int, int]:
    """Root and kernel type table; the offsets of version and model are not filled in yet."""
    import flatbuffers

    argument, kind = _schema("ArgTypeAndIndex"), _schema("KernelTypeStrArgsEntry")
    operator, resolver = _schema("OpIdKernelTypeStrArgsEntry"), _schema("KernelTypeStrResolver")
    session = _schema("InferenceSession")
    b = flatbuffers.Builder(4096)

    def vector(start: Any, offsets: list[int]) -> int:
        start(b, len(offsets))
        for offset in reversed(offsets):
            b.PrependUOffsetTRelative(offset)
        return b.EndVector()

    operators = []
    for name, kinds in entries:
        written = []
        for type_name, pairs in kinds:
            arguments = []
            for arg_type, index in pairs:
                argument.Start(b)
                argument.AddArgType(b, arg_type)
                argument.AddIndex(b, index)
                arguments.append(argument.End(b))
            listed, text = vector(kind.StartArgsVector, arguments), b.CreateString(type_name)
            kind.Start(b)
            kind.AddKernelTypeStr(b, text)
            kind.AddArgs(b, listed)
            written.append(kind.End(b))
        listed, text = vector(operator.StartKernelTypeStrArgsVector, written), b.CreateString(name)
        operator.Start(b)
        operator.AddOpId(b, text)
        operator.AddKernelTypeStrArgs(b, listed)
        operators.append(operator.End(b))
    listed = vector(resolver.StartOpKernelTypeStrArgsVector, operators)
    resolver.Start(b)
    resolver.AddOpKernelTypeStrArgs(b, listed)
    table, nowhere = resolver.End(b), b.CreateString("")
    session.Start(b)
    session.AddOrtVersion(b, nowhere)
    session.AddModel(b, nowhere)
    session.AddKernelTypeStrResolver(b, table)
    b.Finish(session.End(b), file_identifier=b"ORTM")
    front = bytearray(b.Output())
    root = session.InferenceSession.GetRootAs(front, 0)._tab
    version, model = (root.Pos + root.Offset(4 + 2 * s) for s in (_VERSION_SLOT, _MODEL_SLOT))
    return front, version, model
