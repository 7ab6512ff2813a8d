# `make demo` hears it, `make test` tests it, `make check` reads it. Needs Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INTEROP := .venv-interop
FLEET := .venv-fleet

.PHONY: demo test test-slow test-headline test-timed test-arm64 test-interop test-fleet check fuzz format docs clean
SECONDS ?= 60
PYTEST := $(BIN)/python -m pytest --numprocesses 2

demo: $(VENV)/installed-build,report,hub
	$(BIN)/python examples/demo.py

test: $(VENV)/installed-dev
	$(PYTEST) --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/installed-dev
	$(PYTEST) --dist load -m slow

test-headline: $(VENV)/installed-dev
	$(PYTEST) --dist load -m slow tests/headline

# One after the other, as they are limits for CPUs that do nothing else.
test-timed: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m timed

test-arm64: $(VENV)/installed-dev
	tests/device/arm64_env.sh .arm64
	$(BIN)/python -m pytest -m device tests/device
	@cat .arm64/report.md

# In an environment of its own: with TensorFlow in the other one, nobody saw what lacks without it.
test-interop:
	$(MAKE) VENV=$(INTEROP) $(INTEROP)/installed-interop
	$(INTEROP)/bin/python -m pytest --numprocesses 2 --dist worksteal -m interop tests/interop

# One after the other: they time a server, and want the CPUs for themselves.
test-fleet:
	tests/fleet/debian_packages.sh
	$(MAKE) VENV=$(FLEET) $(FLEET)/installed-fleet
	$(FLEET)/bin/python -m pytest -m fleet tests/fleet

check: $(VENV)/installed-dev fuzz
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 edgepack
	$(BIN)/mypy --platform darwin edgepack

# Every reader of files from outside over changed files, for so long in all.
fuzz: $(VENV)/installed-fuzz
	PYTHONPATH=benchmarks:tests $(BIN)/python -m fuzz --seconds $(SECONDS)

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/installed-dev
	$(BIN)/python docs/reference.py > docs/cli.md
	$(BIN)/python docs/solver_plot.py

clean:
	rm -rf $(VENV) $(INTEROP) $(FLEET) demo-output fuzz-found

$(VENV)/installed-%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "edgepack needs Python 3.11 or newer; try make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@
