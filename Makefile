# make install | train | test | soak | quality | bench | bench-quick | docs | gpu | wheels | clean.  Everything lives in .venv (make gpu: .venv-gpu); nothing but package installation needs a network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install train test soak quality bench bench-quick docs gpu wheels clean

help:
	@echo "make install   set up .venv (Python >= 3.11; choose one with PYTHON=/path/to/python3)"
	@echo "make train     set up, then train the default experiment: an adversarial model of handwritten digits"
	@echo "make test      set up, then lint, type-check and test"
	@echo "make soak      the fault tests at full length, figures to benchmarks/reliability (about half an hour)"
	@echo "make quality   rerun the figures of benchmarks/quality (several hours)"
	@echo "make bench     measure benchmarks/speed on this device, every row (an hour or two)"
	@echo "make bench-quick  the CPU ratios against their goals in three minutes; the last line names those missed"
	@echo "make docs      build the documentation as a site, build/docs/index.html (two minutes; no network but for its tools)"
	@echo "make gpu       on a GPU: its tests, speed rows, two quality rows, in eight minutes, to benchmarks/gpu; uses the torch of PYTHON; WHEELS=folder installs the rest without a network"
	@echo "make wheels    collect that folder (WHEELS=wheels), for this Python or FOR=3.12; WITHOUT='numpy scipy' leaves out what is there"
	@echo "make clean     remove .venv and caches"

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: no interpreter '$(PYTHON)': install Python >= 3.11 or run: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $$($(PYTHON) --version) is too old: Python >= 3.11 is needed, run: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: $(PYTHON) has no venv module: install it (Debian: apt-get install python3-venv)"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $(STAMP)

install: $(STAMP)

train: $(STAMP)
	$(BIN)/se-train

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

soak: $(STAMP)
	mkdir -p benchmarks/reliability
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --soak -m soak

quality: $(STAMP)
	$(BIN)/python benchmarks/quality.py

# The libraries that the rows compare with; the constraints keep them from bringing another torch.
$(VENV)/.bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	@touch $@

bench: $(VENV)/.bench
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.speed

bench-quick: $(VENV)/.bench
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.speed --quick

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $@

docs: $(VENV)/.docs
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

# The torch that PYTHON has is used as it is: what lies beside it is installed into an environment over it.
.venv-gpu/.installed: pyproject.toml constraints.txt benchmarks/gpu/install.py
	$(PYTHON) benchmarks/gpu/install.py .venv-gpu $(if $(WHEELS),--wheels $(WHEELS))
	@touch $@

gpu: .venv-gpu/.installed
	.venv-gpu/bin/python -m benchmarks.gpu $(ARGS)

WHEELS_TO := $(if $(WHEELS),$(WHEELS),wheels)
wheels: $(VENV)/.bench
	$(BIN)/python benchmarks/gpu/install.py --collect $(WHEELS_TO) $(if $(FOR),--python $(FOR)) $(if $(WITHOUT),--without $(WITHOUT))

clean:
	rm -rf $(VENV) .venv-gpu .pytest_cache .ruff_cache .mypy_cache build dist *.egg-info
