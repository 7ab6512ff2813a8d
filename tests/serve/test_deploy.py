"""What is in deploy/: it names only what is there, and metrics that the server exports."""

import itertools
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from dockerfile_parse import DockerfileParser
from prometheus_client.parser import text_string_to_metric_families
from served import Served, serving

from edgepack.cli.serve import command
from edgepack.energy.measurement import Measurement
from edgepack.energy.meter import FEW, CounterWindow, Instrument
from edgepack.machine.probe import Machine
from edgepack.runtime.synthesizer import Synthesizer
from edgepack.serve.options import ServeOptions

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text("utf-8"))
ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text("utf-8"))
KSERVE = yaml.safe_load((DEPLOY / "kserve" / "inferenceservice.yaml").read_text("utf-8"))
OF_PROMETHEUS = {"up": {"job", "instance"}}
SCRAPED = {"job", "instance"}  # labels that Prometheus adds
NO_SAMPLE_YET = {"edgepack_faults_total"}  # speech of the tests is without faults


def dashboard_expressions() -> list[str]:
    """As Prometheus is asked, with values in place of Grafana's variables."""
    expressions = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    values = {"$__rate_interval": "5m", "$instance": ".*"}
    for name, value in values.items():
        expressions = [one.replace(name, value) for one in expressions]
    return expressions


def alert_expressions() -> list[str]:
    return [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]


def used(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Metrics of an expression, each with the labels that are asked of the expression's metrics."""
    metrics: dict[str, set[str]] = {}
    grouped: set[str] = set()

    def visit(node: promql.Expr) -> None:
        selector = node.vector_selector if isinstance(node, promql.MatrixSelector) else node
        if isinstance(selector, promql.VectorSelector):
            assert selector.name
            labels = {matcher.name for matcher in selector.matchers.matchers}
            metrics.setdefault(selector.name, set()).update(labels)
        if isinstance(node, promql.AggregateExpr) and node.modifier:
            grouped.update(node.modifier.labels)

    promql.walk(promql.parse(expression), visit)
    assert metrics
    for name, labels in metrics.items():
        yield name, labels | grouped


@pytest.fixture(scope="module")
def metrics(synthesizer: Synthesizer) -> str:
    """What a server with an energy meter exports when it has spoken."""
    count = itertools.count()
    meter = Instrument(
        "package", "a counter", 0.05, lambda: CounterWindow(lambda: {"cpu": next(count)}, 1.0)
    )
    energy = Measurement("rapl", meter, Machine())
    with serving(synthesizer, ServeOptions(cache_bytes=0), energy) as served:
        assert served.speak("Good morning.").status == 200
        text = served.get("/metrics").body.decode()
    assert energy.reading().joules
    return text


def test_energy_says_how_it_is_measured(metrics: str) -> None:
    (family,) = (one for one in text_string_to_metric_families(metrics) if "energy" in one.name)
    (sample,) = family.samples
    assert sample.value >= FEW
    assert sample.labels["quality"] in ("measured", "measured_coarse")
    assert (sample.labels["method"], sample.labels["scope"]) == ("rapl", "package")


@pytest.fixture(scope="module")
def exported(metrics: str) -> dict[str, set[str]]:
    """Names of metrics, with their labels."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics):
        if family.type == "counter":
            found[f"{family.name}_total"] = set()
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize("expression", [*dashboard_expressions(), *alert_expressions()])
def test_expressions_are_of_metrics_that_there_are(
    exported: dict[str, set[str]], expression: str
) -> None:
    for name, labels in used(expression):
        assert name in {**exported, **OF_PROMETHEUS}
        if name not in NO_SAMPLE_YET:
            assert labels <= exported.get(name, set()) | SCRAPED


def test_the_dashboard_shows_every_metric(exported: dict[str, set[str]]) -> None:
    shown = {name for one in dashboard_expressions() for name, _ in used(one)}
    ours = {name for name in exported if name.startswith("edgepack_")}
    histograms = {name.removesuffix("_bucket") for name in ours if name.endswith("_bucket")}
    beside = {f"{name}_{what}" for name in histograms for what in ("sum", "count", "created")}
    created = {name for name in ours if name.endswith("_created")}
    assert ours - beside - created == shown


def test_panels_stand_beside_each_other() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        own = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert max(x for x, _ in own) < 24
        assert not own & cells, panel["title"]
        cells |= own
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_dashboard_has_the_variables_that_it_uses() -> None:
    given = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    asked = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert asked == given | {"__rate_interval"}


def test_prometheus_finds_the_rules() -> None:
    place = DEPLOY / "prometheus"
    settings = yaml.safe_load((place / "prometheus.yml").read_text("utf-8"))
    assert [(place / name).is_file() for name in settings["rule_files"]] == [True]
    names = [rule["alert"] for group in ALERTS["groups"] for rule in group["rules"]]
    assert len(set(names)) == len(names)
    (job,) = {job["job_name"] for job in settings["scrape_configs"]}
    assert f'up{{job="{job}"}} == 0' in alert_expressions()


def instructions(*kinds: str) -> list[str]:
    """Values of the image's instructions of these kinds."""
    # Without a file object the parser would write beside what it reads.
    with (DEPLOY / "Dockerfile").open("rb") as file:
        structure = DockerfileParser(fileobj=file).structure
    return [one["value"] for one in structure if one["instruction"] in kinds]


def test_the_image_is_made_of_what_there_is() -> None:
    kept = {
        line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    }  # fmt: skip
    copied = {name for value in instructions("COPY") for name in value.split()[:-1]}
    assert copied == kept
    assert all((ROOT / name).exists() for name in kept)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert {project["readme"], "LICENSE", "pyproject.toml", "edgepack"} <= kept
    for link in (ROOT / "edgepack").rglob("*"):
        if link.is_symlink():
            assert link.resolve().relative_to(ROOT).parts[0] in kept
    arguments = dict(value.split("=") for value in instructions("ARG"))
    assert set(arguments["EXTRAS"].split(",")) <= set(project["optional-dependencies"])
    assert arguments["PYTHON"] in project["requires-python"]


def test_the_image_serves_and_is_not_root(served: Served) -> None:
    (entry,) = map(json.loads, instructions("ENTRYPOINT"))
    assert entry[:2] == ["edgepack", "serve"]
    context = command.make_context("serve", [*entry[2:], "bundle"])
    assert (context.params["host"], context.params["port"]) == ("0.0.0.0", 8000)
    assert instructions("EXPOSE") == ["8000"]
    assert int(instructions("USER")[-1]) > 0
    (check,) = instructions("HEALTHCHECK")
    (path,) = re.findall(r"127\.0\.0\.1:8000(/[\w/]+)", check)
    assert served.get(path).status == 200


def test_haproxy_asks_what_the_server_answers(served: Served) -> None:
    text = (DEPLOY / "haproxy" / "haproxy.cfg").read_text("utf-8")
    (path,) = re.findall(r"http-check send meth GET uri (\S+)", text)
    assert served.get(path).status == 200
    assert "balance leastconn" in text


def test_kserve_runs_the_image(served: Served) -> None:
    """By the keys that its custom predictors need; it was not run."""
    assert KSERVE["apiVersion"] == "serving.kserve.io/v1beta1"
    assert KSERVE["kind"] == "InferenceService"
    predictor: dict[str, Any] = KSERVE["spec"]["predictor"]
    (container,) = predictor["containers"]
    assert container["name"] == "kserve-container"
    (port,) = container["ports"]
    assert str(port["containerPort"]) in instructions("EXPOSE")
    assert str(predictor["securityContext"]["runAsUser"]) == instructions("USER")[-1]
    (storage,) = [one["value"] for one in container["env"] if one["name"] == "STORAGE_URI"]
    assert re.match(r"(pvc|s3|gs|hf)://", storage)
    assert all(one.startswith("/mnt/models/") for one in container["args"])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["port"] == port["containerPort"]
        assert served.get(asked["path"]).status == 200
    (entry,) = map(json.loads, instructions("ENTRYPOINT"))
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"] for volume in predictor["volumes"]}
    assert entry[entry.index("--key-file") + 1] in mounts
    assert set(mounts.values()) == volumes
