"""The app on a cluster of Ray Serve: replicas on several machines, behind a proxy on each.

Ray is imported when it is used. The proxies bound the requests that wait, and refuse others.
"""

import logging
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.types import ASGIApp

from edgepack.errors import ResourceError, UsageError
from edgepack.machine.cpu import plan, quota
from edgepack.serve.names import named_folders
from edgepack.serve.ray_replica import ReplicaOptions, replica

if TYPE_CHECKING:
    from ray.serve import Application

_NAME = "edgepack"
_RETRY_SECONDS = 2  # that a client is asked to wait
_UP_SECONDS, _DOWN_SECONDS = 5.0, 120.0  # of more or fewer requests, before replicas follow
_SPARE = 2  # requests in a replica beside those that are spoken
_TRIES = 2  # of starting a replica
_POLL_SECONDS, _REACH_SECONDS = 0.2, 5.0
_OUR_ERROR = re.compile(r"edgepack\.errors\.\w+: (.+)")


class FleetOptions(ReplicaOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Replicas and how many: as many as requests need, between two bounds."""

    min_replicas: int = 1
    max_replicas: int = 1
    drain_seconds: int = 60


@dataclass(frozen=True)
class Cluster:
    """A cluster that is to be joined at an address, or started if that is None."""

    address: str | None
    host: str
    port: int


def application(arguments: Mapping[str, Any]) -> "Application":
    """What Ray Serve deploys, of the `args` of a configuration; raises UsageError for wrong ones.

    In a configuration of Serve this is `import_path: edgepack.serve.ray_cluster:application`.
    """
    try:
        options = msgspec.convert(dict(arguments), FleetOptions, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise UsageError(f"args: {error}") from None
    return _application(options)


def _path(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)


def _application(options: FleetOptions) -> "Application":
    if not 1 <= options.min_replicas <= options.max_replicas:
        raise UsageError(
            f"{options.min_replicas} to {options.max_replicas} replicas: give 1 or more, "
            "the fewest first"
        )
    if options.serve.keys:
        raise UsageError("keys: give a key_file, as the cluster keeps what it is told")
    named_folders(map(Path, options.bundles))
    from ray import serve

    def make() -> ASGIApp:
        return replica(options)

    bounds = options.serve
    deployment = serve.deployment(
        name=_NAME,
        ray_actor_options={"num_cpus": options.threads},
        # Who waits does so in a proxy, for the first replica that is free. A few more than are
        # spoken come to a replica: what is kept is answered, and lists are, though it is busy.
        max_ongoing_requests=bounds.running + min(bounds.waiting, _SPARE),
        # As a proxy counts those that it has not given to a replica yet, all may be there at once.
        max_queued_requests=options.max_replicas * (bounds.running + bounds.waiting),
        backpressure_config={"status_code": 429, "retry_after_s": _RETRY_SECONDS},
        autoscaling_config={
            "min_replicas": options.min_replicas,
            "max_replicas": options.max_replicas,
            "target_ongoing_requests": bounds.running,
            "upscale_delay_s": _UP_SECONDS,
            "downscale_delay_s": _DOWN_SECONDS,
        },
        graceful_shutdown_timeout_s=options.drain_seconds,
        graceful_shutdown_wait_loop_s=1.0,
        health_check_period_s=5.0,
        max_constructor_retry_count=_TRIES,
    )
    return deployment(serve.ingress(make)()).bind()


@contextmanager
def deployed(options: FleetOptions, cluster: Cluster) -> Iterator[str]:
    """Serve during the block; gives the address at which other machines join the cluster.

    After the block what is being spoken is finished, and what was started here is shut down.
    Raises UsageError or ResourceError if that cannot be.
    """
    _secure()
    import ray

    made = _application(options)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if cluster.address is None:
            cpus = _enough(options)
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
        else:
            _require_reachable(cluster.address)
            ray.init(address=cluster.address, **quiet)
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        advice = "; is RAY_AUTH_TOKEN that of the cluster?" if cluster.address else ""
        raise ResourceError(f"{error}{advice}") from error
    try:
        _deploy(made, cluster)
        yield ray.get_runtime_context().gcs_address
    finally:
        _withdraw(options.drain_seconds)
        ray.shutdown()  # which ends a cluster that was started here


def _secure() -> None:
    """What Ray reads when it is imported: tokens, and no reports to its makers."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def _enough(options: FleetOptions) -> int:
    """The CPUs of this machine, for a new cluster; raises UsageError if they are too few."""
    there = len(plan.allowed())
    if (share := quota.cpus()) is not None:
        there = max(1, min(there, floor(share)))
    if (wanted := options.threads * options.min_replicas) > there:
        raise UsageError(
            f"replicas that need {wanted} CPUs: this machine has {there}; give fewer --threads, "
            "or --ray-address of a cluster"
        )
    return there


def _require_reachable(address: str) -> None:
    """Raise ResourceError if nothing listens there; Ray itself would try for minutes."""
    if address == "auto":  # the cluster that this machine is part of
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise UsageError(f"--ray-address {address}: give HOST:PORT, or auto")
    try:
        socket.create_connection((host, int(port)), _REACH_SECONDS).close()
    except OSError as error:
        raise ResourceError(f"--ray-address {address}: nobody answers ({error})") from None


def _deploy(made: "Application", cluster: Cluster) -> None:
    """Start the proxies and the replicas, and wait for these."""
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    config = {"log_level": "ERROR"}
    http = {"host": cluster.host, "port": cluster.port}
    serve.start(proxy_location="EveryNode", http_options=http, logging_config=config)
    try:
        serve.run(made, name=_NAME, route_prefix="/", logging_config=config)
    except RuntimeError as error:
        found = serve.status().applications.get(_NAME)
        told = " ".join(one.message for one in found.deployments.values()) if found else str(error)
        ours = _OUR_ERROR.search(told)
        last = ours[1] if ours else told.strip().splitlines()[-1]
        raise ResourceError(f"a replica cannot start: {last}") from error


def _withdraw(drain_seconds: int) -> None:
    """Take the app from the cluster; waits until its replicas have finished, or were ended."""
    from ray import serve

    serve.delete(_NAME, _blocking=False)
    deadline = time.monotonic() + drain_seconds + 30
    while _NAME in serve.status().applications and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
