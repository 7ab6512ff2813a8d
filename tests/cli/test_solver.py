"""`--solver`, and what `verify`, `inspect` and `run` say of solvers."""

from pathlib import Path

import msgspec
import pytest
from linked import linked
from support import GOLDEN, Build, shuffled

from cli import Cli
from edgepack.bundle.bundle import Bundle


@pytest.mark.slow
def test_verify_measures_the_table_again(int8_demo: Bundle, cli: Cli, tmp_path: Path) -> None:
    changed = linked(int8_demo.folder, tmp_path)
    ran = cli("verify", changed.folder, "--format", "ort", "--json")
    assert ran.code == 0
    solvers = changed.manifest.solvers
    measured = ran.document["runtimes"]["ort"]["exam"]["solver_error"]["value"]
    assert measured == pytest.approx(solvers["ort"].accuracy.decibel, rel=0.01)
    wrong = msgspec.structs.replace(solvers["ort"], solver=shuffled(solvers["ort"].solver))
    changed.with_manifest(
        msgspec.structs.replace(changed.manifest, solvers={**solvers, "ort": wrong})
    )
    ran = cli("verify", changed.folder, "--format", "ort", "--json")
    assert ran.code == 1
    assert ran.document["runtimes"]["ort"]["failed_gates"][0].startswith("solver_error is")


def test_inspect_shows_error_over_evaluations(int8_demo: Bundle, cli: Cli) -> None:
    told = cli("inspect", int8_demo.folder)
    assert "solver: evaluations and error" in told.out
    assert "20, the original's" in told.out
    assert "chosen" in told.out
    found = cli("inspect", int8_demo.folder, "--json").document["solvers"]["ort"]
    assert found["accuracy"]["evaluations"] <= 10


def test_run_says_which_solver_it_used(int8_demo: Bundle, cli: Cli) -> None:
    solver = int8_demo.manifest.solvers["ort"].solver
    used = cli("run", int8_demo.folder, "你好。", "--format", "ort", "--json").document["solver"]
    assert used == {
        "name": "calibrated", "steps": len(solver.steps), "evaluations": solver.evaluations,
    }  # fmt: skip
    options = ("--format", "ort", "--solver", "reference")
    used = cli("run", int8_demo.folder, "你好。", *options, "--json").document["solver"]
    assert used == {"name": "reference", "steps": 10, "evaluations": 20}
    assert (
        "reference solver (20 evaluations)" in cli("run", int8_demo.folder, "你好。", *options).out
    )


def test_a_bundle_without_a_table_says_so(bundle: Build, cli: Cli) -> None:
    assert "the checkpoint's own, 10 guided steps" in cli("inspect", bundle("demo")).out
    ran = cli("run", bundle("demo"), "你好。", "--solver", "calibrated")
    assert ran.code == 2
    assert "has no calibrated solver for ort" in ran.err


@pytest.mark.slow
def test_vectors_of_the_original_are_of_its_solver(bundle: Build, cli: Cli) -> None:
    folder = bundle("cosyvoice2-s1")
    options = ("--format", "ort", "--against", GOLDEN / "cosyvoice2-s1")
    assert cli("verify", folder, *options, "--solver", "reference", "-q").code == 0
    ran = cli("verify", folder, *options, "--solver", "calibrated", "-q")
    assert ran.code == 2
    assert "has no calibrated solver" in ran.err
