"""`edgepack serve`."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgepack.cli import _wyoming
from edgepack.cli._cpu import CpuOptions, cpu_options, placed, planned
from edgepack.cli._options import (
    PATH,
    EngineOptions,
    OutputOptions,
    as_record,
    batch_option,
    energy_option,
    engine_options,
    guard_option,
    output_options,
)
from edgepack.cli._ray import RayOptions, ray_options, require_ray
from edgepack.cli._wyoming import WyomingOptions, wyoming_options

if TYPE_CHECKING:
    from edgepack.bundle.bundle import Bundle
    from edgepack.machine.cpu.plan import CpuPlan
    from edgepack.serve.options import ServeOptions


@dataclass(frozen=True, kw_only=True)
class ServeCommand(CpuOptions, EngineOptions, OutputOptions, RayOptions, WyomingOptions):
    """Arguments and options of `edgepack serve`."""

    bundles: tuple[Path, ...]
    host: str
    port: int
    key_file: Path | None
    running: int | None
    batch: int | None
    waiting: int | None
    cache: str | None
    cache_mb: int
    guard: str
    energy: str
    lead: int
    drain: int
    uploads: bool


@click.command(short_help="Speak over HTTP, with OpenAI's API.")
@click.argument("bundles", nargs=-1, required=True, type=PATH)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen on; for others than loopback give --key-file.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="0 is any that is free.",
)
@click.option(
    "--key-file", type=PATH, metavar="FILE", help="API keys, one a line; requests bring one."
)
@wyoming_options
@click.option(
    "--running",
    type=click.IntRange(1, 64),
    help="Texts that are spoken at once.  [default: one for two threads, or those of --batch]",
)
@batch_option
@click.option(
    "--waiting",
    type=click.IntRange(0, 10_000),
    help="Texts that may wait; others are told to come later.  [default: four for each of "
    "--running]",
)
@click.option(
    "--cache",
    envvar="EDGEPACK_CACHE",
    metavar="DIR|URL",
    help="Keep finished speech in a folder, or in Redis (redis://…), which several servers share. "
    "EDGEPACK_CACHE sets it, too.  [default: in memory]",
)
@click.option(
    "--cache-mb",
    type=click.IntRange(0, 1_000_000),
    default=64,
    show_default=True,
    help="How much is kept; 0 is nothing.",
)
@guard_option
@energy_option
@click.option(
    "--lead",
    type=click.IntRange(0, 5000),
    default=0,
    show_default=True,
    metavar="MS",
    help="Silence before each text, for players that swallow the first sound.",
)
@click.option(
    "--drain",
    type=click.IntRange(1, 3600),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="How long SIGTERM waits for what is being spoken.",
)
@click.option(
    "--uploads",
    is_flag=True,
    help="Let clients add voices made of recordings, and remove those.",
)
@ray_options
@cpu_options
@engine_options
@output_options
@as_record(ServeCommand)
def command(options: ServeCommand) -> None:
    """Speak with BUNDLES for clients of OpenAI's speech API, until SIGTERM or Ctrl-C.

    Clients ask for a bundle by the name of its folder, as the model.
    """
    from edgepack.bundle.bundle import open_bundle
    from edgepack.runtime.engines import installed
    from edgepack.serve.names import named_folders

    metered = options.energy if options.energy != "auto" else None
    alone = {
        "--cpus": options.cpus, "--uploads": options.uploads, "--wyoming": options.wyoming,
        "--energy": metered,
    }  # fmt: skip
    require_ray(options, options.port, alone)
    opened = [open_bundle(path) for path in options.bundles]
    names = list(named_folders(bundle.folder for bundle in opened))
    if options.ray:
        _with_ray(options, opened, names)
        return
    runtimes = [installed.chosen(bundle, options.runtime) for bundle in opened]
    plan = _plan(opened, runtimes, options)

    from edgepack import report
    from edgepack.energy.measurement import Measurement, select
    from edgepack.machine.memory import return_large_blocks
    from edgepack.machine.probe import Machine
    from edgepack.runtime.engines.quiet import hush
    from edgepack.runtime.load_options import LoadOptions
    from edgepack.runtime.synthesizer import Synthesizer
    from edgepack.serve import policy, server
    from edgepack.serve.app import app

    known = policy.admitted(options.host, options.key_file)
    wanted = _wanted(options)
    if options.uploads:
        policy.require_uploads(opened)
    loaded = LoadOptions(plan=plan, batch=options.batch)
    machine = Machine()
    meters = select(options.energy, machine, opened[0].manifest.device)
    return_large_blocks()
    for bundle, runtime in zip(opened, runtimes, strict=True):
        hush(bundle, runtime)
    with (
        server.bound(options.host, options.port) as listening,
        _wyoming.bound(options) as listeners,
    ):
        synthesizers = {
            name: Synthesizer.load(bundle.folder, runtime, options=loaded)
            for name, bundle, runtime in zip(names, opened, runtimes, strict=True)
        }
        together = all(one.concurrent for one in synthesizers.values())
        running, waiting = policy.bounds(
            plan.threads if together else 1, options.running, options.waiting, options.batch
        )
        made = app(synthesizers, replace(wanted, running=running, waiting=waiting, keys=known))
        if meters.name is not None and meters.instrument is not None:
            energy = Measurement(meters.name, meters.instrument, machine)
            made.state.service.metrics.measure(energy)
        url = f"{server.url(listening)}/v1"
        peers = listeners(made.state.service)

        def ready() -> None:
            if options.as_json:
                bounds = {"running": running, "waiting": waiting}
                more = {"wyoming": peers[0].url} if peers else {}
                report.document({"url": url, **more, "models": names, **bounds})
                sys.stdout.flush()
            elif options.shown:
                places = " and ".join([url, *(peer.url for peer in peers)])
                report.told("serving", f"{', '.join(names)} at {places}, {running} at once")

        server.serve(made, listening, options.drain, ready, peers)


def _wanted(options: ServeCommand) -> "ServeOptions":
    """How to serve, but for the keys and the bounds of requests; a Redis is tried."""
    from edgepack.serve import redis_store
    from edgepack.serve.options import ServeOptions

    cache_url = options.cache if options.cache and redis_store.is_url(options.cache) else None
    if cache_url:
        redis_store.connected(cache_url)
    return ServeOptions(
        cache_bytes=options.cache_mb * 1_000_000,
        cache_folder=Path(options.cache).absolute() if options.cache and not cache_url else None,
        cache_url=cache_url,
        strict=options.guard == "error",
        lead_seconds=options.lead / 1000,
        uploads=options.uploads,
    )


def _with_ray(options: ServeCommand, bundles: "list[Bundle]", names: list[str]) -> None:
    """Serve from a cluster of Ray."""
    from edgepack.cli._ray import replicas, serve_on_ray
    from edgepack.machine.cpu import plan
    from edgepack.serve import policy
    from edgepack.serve.ray_cluster import Cluster, FleetOptions

    policy.admitted(options.host, options.key_file)
    fewest, most = replicas(options.replicas)
    threads = options.threads or plan.current(plan.for_device(bundles[0].manifest.device)).threads
    running, waiting = policy.bounds(threads, options.running, options.waiting, options.batch)
    fleet = FleetOptions(
        bundles=[str(bundle.folder.resolve()) for bundle in bundles],
        runtime=options.runtime,
        threads=threads,
        overlap=options.overlap,
        batch=options.batch,
        key_file=str(options.key_file.resolve()) if options.key_file else None,
        serve=replace(_wanted(options), running=running, waiting=waiting),
        min_replicas=fewest,
        max_replicas=most,
        drain_seconds=options.drain,
    )
    cluster = Cluster(options.ray_address, options.host, options.port)
    serve_on_ray(fleet, cluster, names, as_json=options.as_json, shown=options.shown)


def _plan(bundles: "list[Bundle]", runtimes: list[str], options: ServeCommand) -> "CpuPlan":
    """The plan of the first bundle, which all of one process have; warns of others' own plans."""
    from edgepack import report
    from edgepack.machine.cpu import lists

    def told(plan: "CpuPlan") -> str:
        plural = "" if plan.threads == 1 else "s"
        return f"{plan.threads} thread{plural} on CPU {lists.show(plan.cpus)}"

    own = [planned(*each, options, options.threads) for each in zip(bundles, runtimes, strict=True)]
    made = placed(bundles[0], options, runtimes[0], options.threads)
    for bundle, plan in zip(bundles, own, strict=True):
        if told(plan) != told(own[0]):
            report.warn(
                f"{bundle.folder}: alone it would have {told(plan)}; here it has those of "
                f"{bundles[0].folder}, {told(own[0])}, so other samples than 'edgepack run' are "
                "possible"
            )
    return made
