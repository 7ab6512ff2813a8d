"""`edgepack serve --ray`: its options, and the command from there on."""

import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from edgepack.cli._options import Decorated
from edgepack.errors import UsageError

if TYPE_CHECKING:
    from edgepack.serve.ray_cluster import Cluster, FleetOptions


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Values of `ray_options`."""

    ray: bool
    ray_address: str | None
    replicas: str | None


def ray_options(command: Decorated) -> Decorated:
    """`--ray`, `--ray-address` and `--replicas`."""
    command = click.option(
        "--replicas",
        metavar="MIN:MAX",
        help="With --ray: as many as there are requests for, within these bounds.  [default: 1:1]",
    )(command)
    command = click.option(
        "--ray-address",
        metavar="ADDRESS",
        help="With --ray: the cluster to join.  [default: a new one, of this machine]",
    )(command)
    return click.option(
        "--ray",
        is_flag=True,
        help="Serve with Ray Serve, on the machines of a cluster; --threads is CPUs of a replica.",
    )(command)


def require_ray(options: RayOptions, port: int, alone: Mapping[str, object]) -> None:
    """Raise UsageError for options that go without `--ray` only, `alone`, or with it only."""
    with_ray = {"--ray-address": options.ray_address, "--replicas": options.replicas}
    for name, value in (alone if options.ray else with_ray).items():
        if value not in (None, False):
            way = "goes without --ray" if options.ray else "goes with --ray"
            raise UsageError(f"{name} {way}")
    if options.ray and port == 0:
        raise UsageError("--port 0: with --ray it is the same on every machine; give a number")


def replicas(text: str | None) -> tuple[int, int]:
    """The fewest and most replicas of `--replicas`; raises UsageError."""
    fewest, colon, most = (text or "1").partition(":")
    with suppress(ValueError):
        found = int(fewest), int(most if colon else fewest)
        if 1 <= found[0] <= found[1]:
            return found
    raise UsageError(f"--replicas {text}: give a number, or the fewest and the most, as in 1:4")


def serve_on_ray(
    fleet: "FleetOptions", cluster: "Cluster", names: Sequence[str], *, as_json: bool, shown: bool
) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what is being spoken."""
    from edgepack import report
    from edgepack.process import interrupts
    from edgepack.serve.ray_cluster import deployed

    url = f"http://{cluster.host}:{cluster.port}/v1"
    both = [fleet.min_replicas, fleet.max_replicas]
    with suppress(KeyboardInterrupt), deployed(fleet, cluster) as address:
        interrupts.listen()  # Ray has put a handler of its own in the place of ours
        if as_json:
            document = {"url": url, "models": list(names), "ray": address, "replicas": both}
            running, waiting = fleet.serve.running, fleet.serve.waiting
            report.document({**document, "running": running, "waiting": waiting})
            sys.stdout.flush()
        elif shown:
            report.told("serving", f"{', '.join(names)} at {url}, with Ray at {address}")
        threading.Event().wait()
