"""What a replica of Ray Serve is: the app of a plain server, on CPUs that no other replica has."""

import logging
from dataclasses import replace
from pathlib import Path

import msgspec
from starlette.types import ASGIApp

from edgepack.machine.cpu import affinity, claims, lists, plan, quota, topology
from edgepack.machine.cpu.plan import CpuPlan, Wish
from edgepack.machine.memory import keep_few_kernels, return_large_blocks
from edgepack.serve.names import named_folders
from edgepack.serve.options import ServeOptions

_log = logging.getLogger(__name__)


class ReplicaOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What each replica serves, and how.

    `bundles` and `key_file` are paths, which are the same on every machine. The keys themselves are
    not among the options, as those are kept by the cluster.
    """

    bundles: list[str]
    runtime: str | None = None
    threads: int = 2
    overlap: bool | None = None
    batch: int | None = None
    key_file: str | None = None
    serve: ServeOptions = ServeOptions()


def replica(options: ReplicaOptions) -> ASGIApp:
    """Pin this process, load the bundles and make the app. Called once in each replica's process.

    Raises UsageError where a plain server would.
    """
    keep_few_kernels()
    return_large_blocks()
    placed = _placed(options)
    affinity.enter(placed)
    from edgepack.runtime.load_options import LoadOptions
    from edgepack.runtime.synthesizer import Synthesizer
    from edgepack.serve import keys
    from edgepack.serve.app import app

    known = keys.read(Path(options.key_file)) if options.key_file else ()
    loading = LoadOptions(plan=placed, batch=options.batch)
    synthesizers = {
        name: Synthesizer.load(folder, options.runtime, options=loading)
        for name, folder in named_folders(map(Path, options.bundles)).items()
    }
    return app(synthesizers, replace(options.serve, keys=known))


def _placed(options: ReplicaOptions) -> CpuPlan:
    """The plan for a replica: CPUs of its own, or only its number of threads if none are free."""
    machine, allowed = topology.read(), plan.allowed()
    cores = machine.one_per_core(allowed)
    among = [*cores, *sorted(allowed - set(cores))]
    own = claims.claim(options.threads, among)
    if own is None:
        _log.warning("%d CPUs are not free: this replica is not pinned", options.threads)
    cpus = lists.show(own.cpus) if own else "all"
    wish = Wish(cpus, threads=options.threads, overlap=options.overlap)
    return plan.make(machine, allowed, quota.cpus(), wish)
