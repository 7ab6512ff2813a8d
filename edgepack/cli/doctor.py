"""`edgepack doctor`."""

from typing import Any

import click

from edgepack.cli._options import output_options


@click.command(short_help="Tell what this machine has and can do.")
@output_options
def command(*, as_json: bool, quiet: bool) -> None:
    """CPUs, limits, runtimes and energy meters of this machine, and what to do about them."""
    from edgepack import report
    from edgepack.bench import diagnosis

    with report.progress("doctor", shown=not (quiet or as_json)) as step:
        step("meters have to be seen to advance")
        found = diagnosis.examine()
    if as_json:
        report.document(found)
        return
    if quiet:
        return
    for row in _lines(found):
        report.line(row)
    rows = [[name, of["version"] or "", of["advice"]] for name, of in found["runtimes"].items()]
    report.table("runtimes", ["runtime", "version", ""], rows)
    rows = [
        [name, "usable" if of["usable"] else "no", of["source"] or of["reason"]]
        for name, of in found["meters"].items()
    ]
    report.table("energy meters", ["meter", "", "reads, or why not"], rows)
    for advice in found["advice"]:
        report.line(f"- {advice}")


def _lines(found: dict[str, Any]) -> list[str]:
    from edgepack import report

    kinds = {k: cpus for k, cpus in found["kinds"].items() if k != "U"}
    classes = ", ".join(f"{k}: {cpus}" for k, cpus in kinds.items()) or "all alike"
    quota = found["quota_cpus"]
    memory = found["memory_bytes"]
    gpu = found["gpu"]
    parts = {"L4T": "l4t", "TensorRT": "tensorrt", "CUDA": "cuda", "GPU": "gpu"}
    stack = ", ".join(f"{name} {gpu[key]}" for name, key in parts.items() if gpu[key])
    return [
        f"{found['cpu'] or found['architecture']}: CPU {found['cpus']} on {found['cores']} cores, "
        f"{classes}; this process may use {found['allowed']}",
        f"limit of the control group: {'none' if quota is None else f'{quota:g} CPUs'}; "
        f"so {found['threads']} compute threads",
        f"instruction sets: {', '.join(found['isa']) or 'none known'}; {found['int8']}",
        f"memory: {report.size(memory) if memory else 'not known'}; "
        f"frequency governor: {found['governor'] or 'not known'}; {found['system']}, "
        f"Python {found['python']}",
        f"ONNX Runtime's providers: {', '.join(gpu['providers']) or 'none'}; {stack or 'no GPU'}",
    ]
