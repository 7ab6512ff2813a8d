"""`edgepack targets`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from edgepack.cli import _complete
from edgepack.cli._options import output_options

if TYPE_CHECKING:
    from edgepack.bundle.metrics import Limit
    from edgepack.profiles.target import Gpu, TargetProfile


@click.command(short_help="List the target profiles, or explain one.")
@click.argument("name", required=False, shell_complete=_complete.targets)
@output_options
def command(name: str | None, as_json: bool, quiet: bool) -> None:
    """List the target profiles, or explain the one called NAME."""
    import msgspec

    from edgepack import report
    from edgepack.profiles import target

    names = [name] if name else target.names()
    profiles = {n: target.load(n) for n in names}
    if as_json:
        report.document({"targets": {n: msgspec.to_builtins(p) for n, p in profiles.items()}})
    elif quiet:
        return
    elif name:
        for line in _explained(name, profiles[name]):
            report.line(line)
    else:
        rows = [[n, p.summary, ", ".join(p.runtimes)] for n, p in profiles.items()]
        report.table("targets", ["target", "device", "runtimes"], rows)


def _explained(name: str, profile: "TargetProfile") -> Iterator[str]:
    """A profile in words, line by line."""
    import msgspec

    yield f"{name}: {profile.summary}"
    yield f"architecture: {profile.architecture}"
    if profile.os:
        yield f"system: {', '.join(f'{key} {value}' for key, value in profile.os.items())}"
    if profile.isa:
        yield f"instruction sets: {', '.join(profile.isa)}"
    if profile.cores:
        cores = profile.cores
        kinds = "".join(f", {kind.count} x {kind.name}" for kind in cores.classes)
        threads = f" on {cores.threads} threads" if cores.threads else ""
        yield f"cores: {cores.layout}{kinds}; uses {cores.use} cores{threads}"
    if profile.memory:
        memory = profile.memory
        yield (
            f"memory: {memory.ram_mb} MB; at most {memory.bundle_mb} MB of files for one runtime, "
            f"{memory.peak_mb} MB when it speaks"
        )
    for runtime, options in profile.runtimes.items():
        tuned = f", optimized for {options.platform}" if options.platform else ""
        asked = f", only with --format {runtime}" if options.on_request else ""
        yield f"runtime: {runtime}, as .{options.container} files{tuned}{asked}"
        for other, roles in options.delegates.items():
            yield f"runtime: {other} may run {', '.join(roles)} for {runtime} if it is faster"
    for role, precision in profile.precision.items():
        which = "every other stage" if role == "default" else role
        yield f"precision: {precision} for {which}"
    if profile.gpu:
        yield from _gpu(profile.gpu)
    if profile.packaging:
        packaging = profile.packaging
        yield (
            f"packaging: {packaging.compression}, files of {packaging.part_mb} MB at most, "
            f"uncompressed: {', '.join(f'.{suffix}' for suffix in packaging.no_compress)}"
        )
    if profile.energy:
        scope = f", of {profile.energy.scope}" if profile.energy.scope else ""
        yield f"energy meters: {', '.join(profile.energy.meters) or 'none'}{scope}"
        if watts := profile.energy.watts:
            yield (
                f"for an estimate on request: {watts.active_w_per_core:g} W a core, "
                f"{watts.idle_w:g} W idle, {watts.provenance}"
            )
    for level, limits in profile.gates.items():
        ends = [f"{m} {_ends(limit)}" for m, limit in limits.items()]
        yield f"gates at {level}: {', '.join(ends)}"
    goals = msgspec.to_builtins(profile.goals).items()
    wanted = [f"{goal} {limit:g}" for goal, limit in goals if limit is not None]
    yield f"goals, at most: {', '.join(wanted) or 'none'}"
    if not profile.enrolment:
        yield "enrolment networks: left out where the bundle has voices"


def _gpu(gpu: "Gpu") -> Iterator[str]:
    others = [f"{provider} for {stage}" for stage, provider in gpu.providers.items()]
    yield f"GPU: {gpu.architecture or 'any'}; {', '.join(others)}".replace(
        "for default", "for every other stage"
    )
    yield (
        f"lengths: {gpu.text.least} to {gpu.text.most} text and {gpu.speech.least} to "
        f"{gpu.speech.most} speech tokens; workspace of {gpu.workspace_mb} MiB"
    )
    for release in gpu.releases:
        yield (
            f"JetPack {release.jetpack}: L4T {release.l4t}, CUDA {release.cuda}, "
            f"TensorRT {release.tensorrt}, cuDNN {release.cudnn}, "
            f"ONNX Runtime {release.onnxruntime} or newer"
        )


def _ends(limit: "Limit") -> str:
    low = "" if limit.low is None else f"≥ {limit.low:g}"
    high = "" if limit.high is None else f"≤ {limit.high:g}"
    return f"{low} {high}".strip()
