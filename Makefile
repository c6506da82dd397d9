# The commands of the workspace. On a fresh machine Python, make and one of these are enough: what is missing is installed.

SCALE ?= quick
UV := tools/uv
BIN := .venv/bin
READY := .venv/.ready

# A paper is a package that declares an experiment; nothing has to be listed here.
PACKAGES := $(sort $(notdir $(patsubst %/pyproject.toml,%,$(wildcard packages/*/pyproject.toml))))
PAPERS := $(notdir $(patsubst %/pyproject.toml,%,$(shell grep -l '^\[project.entry-points."tenfold.experiments"\]' packages/*/pyproject.toml)))
HERE := not gpu and not vllm and not dft and not site and not network
IN_CI := not long and $(HERE)
ORDINARY := not slow and $(IN_CI)
# Files with slow tests begin first (conftest.py), so that no process is left with one at the end.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations=12 --durations-min=3

.DEFAULT_GOAL := help
.PHONY: help setup $(PAPERS) reproduce report test test-ci test-all test-vllm test-dft test-verl test-newest gpu bench lint ruff types imports kernels format docs wheels build ci clean

help: ## show this list
	@echo "make TARGET, where TARGET is one of"
	@awk -F ':.*## ' '/^[a-z<>$$(][^:=]*:.*## / { gsub(/[$$]\(PAPERS\)/, "<paper>", $$1); gsub(/test-%/, "test-<package>", $$1); \
		gsub(/bench-%/, "bench-<package>", $$1); printf "  %-18s %s\n", $$1, $$2 }' Makefile
	@echo "papers:   $(PAPERS)"
	@echo "packages: $(PACKAGES)"

setup: $(READY) ## install everything into .venv, from uv.lock

# What is written in C++ is built where a compiler is found, and again when its source changes.
NATIVE := memoryformer-cpu
NATIVE_SOURCES := $(wildcard packages/*/CMakeLists.txt packages/*/src/native/*)
COMPILER := $(shell command -v c++ || command -v g++ || command -v clang++)

$(READY): pyproject.toml uv.lock $(wildcard packages/*/pyproject.toml) $(NATIVE_SOURCES)
	$(if $(COMPILER),,@echo "no C++ compiler found: $(NATIVE) is left out" >&2)
	$(UV) sync --all-packages --all-extras --no-extra vllm --no-extra llama-cpp --no-extra gpaw --all-groups $(if $(COMPILER),,$(addprefix --no-install-package ,$(NATIVE)))
	@touch $@

## papers

$(PAPERS): $(READY) ## run that paper's experiment and open the report; SCALE=laptop|paper for more; an interrupted run goes on
	$(BIN)/tenfold run $@ --scale $(SCALE) --resume
	$(BIN)/tenfold report --open

reproduce: $(READY) ## the same for all papers, as many side by side as fill the processors; one that fails does not stop the others
	$(BIN)/python tools/reproduce.py --scale $(SCALE) $(PAPERS)

report: $(READY) ## build the page of all results so far and open it
	$(BIN)/tenfold report --open

## checks

test: $(READY) ## all tests that need no GPU and no network, save the slow ones
	$(PYTEST) -m '$(ORDINARY)'

test-ci: $(READY) ## with the slow ones
	$(PYTEST) -m '$(IN_CI)'

test-all: $(READY) ## with those that take minutes each as well: before a release
	$(PYTEST) -m '$(HERE)'

test-vllm: $(READY) ## the tests that need vLLM, in an environment of their own (.venv-vllm, Linux)
	$(BIN)/python tools/test_vllm.py

test-dft: $(READY) ## the tests that need GPAW, in an environment of their own (.venv-dft; needs libxc and a C++ compiler)
	$(BIN)/python tools/test_dft.py

test-verl: $(READY) ## prime inside verl on a local Ray cluster, in an environment of their own (.venv-verl; not in make ci: minutes)
	$(BIN)/python tools/test_verl.py

test-newest: $(READY) ## the tests under the newest releases of all dependencies, in an environment of their own (.venv-newest)
	$(BIN)/python tools/test_newest.py

test-%: $(READY) ## the tests of one package
	$(BIN)/python -m pytest -m '$(ORDINARY)' packages/$*

gpu: $(READY) ## on a machine with a CUDA GPU: the tests that need one, then the GPU benchmarks
	@$(BIN)/python -c 'import sys, torch; torch.cuda.is_available() or sys.exit("make gpu needs a CUDA GPU; torch sees none here.")'
	$(BIN)/python -m pytest -m gpu || [ $$? -eq 5 ]
	@for file in $(wildcard packages/*/benchmarks/gpu.py); do \
		echo "== $$file"; $(BIN)/python "$$file" || exit 1; done

bench: $(READY) ## all benchmarks; what they print is kept in results/benchmarks
	$(BIN)/python tools/bench.py $(PACKAGES)

bench-%: $(READY) ## the benchmarks of one package
	$(BIN)/python tools/bench.py $*

lint: ruff types imports ## format, lint, types, and which package may import which

ruff: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports --no-logo

kernels: $(READY) ## compile the GPU kernels for each target, with no GPU: all that changed, of others some; ALL=1 all; UPDATE=1 writes the golden tables
	$(BIN)/python tools/kernel_check.py $(if $(ALL),--all) $(if $(UPDATE),--update)

format: $(READY) ## format, and repair what the linter can
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

## artefacts

docs: $(READY) ## the site, in site/, and the tests that look at its pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python -m pytest -m site tools/tests

wheels: $(READY) ## build every package and install each alone in a clean environment
	$(BIN)/python tools/check_wheels.py

build: $(READY) ## the wheels and source distributions, in dist/
	$(UV) build --all-packages --out-dir dist

ci: ## all checks in order, with the time of each; stops at the first that fails
	@python3 tools/stages.py setup ruff wheels,docs,types,test-dft,kernels,imports test-ci test-vllm

clean: ## remove what was built: caches, dist, site (results stay)
	rm -rf dist site .venv-wheels-* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find packages tools -name __pycache__ -type d -prune -exec rm -rf {} +
