# memscale. `make` alone prints what there is. Every target first makes .venv where it is missing.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

GRID    ?= quick#          a file in sweeps/grids, by name, or the path of a YAML file
SEEDS   ?=#                number of seeds an arm; empty: as the grid says
DEVICE  ?=#                cpu, cuda; empty: the GPU where there is one
GPU_SHARE ?=#              of a GPU for one trial, as 0.25; empty: 1
MINUTES ?=#                after which a sweep stops as by Ctrl-C; empty: at its end
PROCESSES ?=#              that train one trial together, a core or a GPU each; empty: 1
RESULTS ?= results#        folder that everything is written to
STORAGE ?=#                s3://BUCKET/PREFIX, for nodes of a cluster that do not share RESULTS
BANK    ?=#                where banks lie: device (default), host, or disk, which may exceed memory
CONFIG  ?=#                YAML file of one run, for `make train`
UI_HOST ?= 127.0.0.1#      where `make ui` listens
UI_PORT ?= 5000#           and on which port
JOBS    ?= 2#              processes of `make test`
PYTHON  ?= $(shell command -v python3.11 || command -v python3)#  makes .venv

# Nothing that we run reports home. One thread a process: two collapse on shared cores.
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true
export RAY_USAGE_STATS_ENABLED := 0
export OMP_NUM_THREADS ?= 1

BIN := .venv/bin
INSTALLED := .venv/installed
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
strip_grid = "$(strip $(GRID))"
grid_folder = "$(strip $(RESULTS))/$(notdir $(basename $(strip $(GRID))))"
options = --results "$(strip $(RESULTS))" $(if $(strip $(SEEDS)),--seeds "$(strip $(SEEDS))") \
	$(if $(strip $(STORAGE)),--storage "$(strip $(STORAGE))")
device = $(if $(strip $(DEVICE)),--device "$(strip $(DEVICE))")
processes = $(if $(strip $(PROCESSES)),--processes "$(strip $(PROCESSES))")
bank = $(if $(strip $(BANK)),--bank "$(strip $(BANK))")
gpu_share = $(if $(strip $(GPU_SHARE)),--gpu-share "$(strip $(GPU_SHARE))")
until = $(if $(strip $(MINUTES)),--until $(shell expr $$(date +%s) + 60 \* $(strip $(MINUTES))))

.PHONY: help
help: ## print this
	@echo "usage: make TARGET [VARIABLE=value ...]"; echo; echo "targets"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' Makefile
	@echo; echo "variables"
	@awk 'match($$0, /^[A-Z_]+ +\?=/) {split($$0, a, /#+ */); v = a[1]; sub(/^[A-Z_]+ +\?= */, "", v); \
		if (v ~ /shell/) v = "python3.11"; sub(/ +$$/, "", v); sub(/ .*/, "", a[1]); \
		printf "  %-14s %s%s\n", a[1], a[2], v == "" ? "" : " (default " v ")"}' Makefile

$(INSTALLED): requirements.lock pyproject.toml
	@"$(strip $(PYTHON))" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "error: '$(strip $(PYTHON))' is not Python 3.11 or newer; install it, or: make PYTHON=/path/to/python3.11" >&2; \
		exit 2; }
	@echo "installing the pinned packages into .venv (some minutes the first time)"
	@test -x $(BIN)/python || "$(strip $(PYTHON))" -m venv .venv
	@$(PIP) install -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: sweep
sweep: $(INSTALLED) ## run what is not finished of GRID: starts, resumes, widens
	@$(BIN)/python -m sweeps run $(strip_grid) $(options) $(device) $(gpu_share) $(processes) $(bank) $(until)

.PHONY: plots
plots: $(INSTALLED) ## fit the runs of GRID, draw RESULTS/GRID/report.html, log it in MLflow
	@$(BIN)/python -m analysis plots $(strip_grid) --results "$(strip $(RESULTS))"
	@$(BIN)/python -m sweeps publish $(strip_grid) --results "$(strip $(RESULTS))"

.PHONY: keep
keep: $(INSTALLED) ## copy the tables of GRID to RESULTS/reference, to be committed: its runs then count as done
	@$(BIN)/python -m sweeps keep $(strip_grid) --results "$(strip $(RESULTS))"

# In an order that lets grids share runs: rates first, then what they are for.
STUDY := routing-rates routing-gain routing law-rates budget-rates close-rates budget-memory-rates \
	law law-beyond type-rates token-rates bank-rates memory-type fetched-size tree-level placement \
	fetched-by-bank runtime-split training-mode tokens-per-parameter epochs
.PHONY: study-cpu
study-cpu: $(INSTALLED) ## the reference study: its grids in turn, each kept as it ends, and posthoc; some twenty hours of two cores
	@for grid in $(STUDY); do $(MAKE) --no-print-directory sweep keep GRID=$$grid || exit; done
	@$(MAKE) --no-print-directory posthoc
	@$(MAKE) --no-print-directory plots GRID=reference

POSTHOC := --results "$(strip $(RESULTS))" --out "$(strip $(RESULTS))/reference/posthoc"
.PHONY: posthoc
posthoc: $(INSTALLED) ## the study's banks on a frozen pretrained model, and the facts asked of them: what their tables lack
	@$(PIP) install -c requirements.lock --no-build-isolation -e '.[posthoc]'
	@$(BIN)/python benchmarks/posthoc.py $(POSTHOC) --tune
	@$(BIN)/python benchmarks/posthoc.py $(POSTHOC)
	@$(BIN)/python benchmarks/posthoc_facts.py $(POSTHOC)

.PHONY: rates
rates: $(INSTALLED) ## write the best rates of GRID, a grid over rates, to sweeps/grids/GRID.csv
	@$(BIN)/python -m analysis tune $(strip_grid) --results "$(strip $(RESULTS))" \
		--out sweeps/grids/$(notdir $(basename $(strip $(GRID)))).csv

.PHONY: data
data: $(INSTALLED) ## pack the text of GRID, or of several, for a machine without network: RESULTS/data.tar.xz
	@$(BIN)/python -m sweeps data $(GRID) --results "$(strip $(RESULTS))"

# gpu-beyond-rates and gpu-law-beyond are not among them: they wait for a prediction.
STUDY_GPU := gpu-law-rates gpu-law gpu-type-rates gpu-memory-type gpu-fetched-size gpu-tree-level gpu-placement \
	gpu-runtime-split gpu-training-mode gpu-tokens-per-parameter
.PHONY: data-gpu
data-gpu: GRID := $(STUDY_GPU)
data-gpu: data ## the same for study-gpu

.PHONY: study-gpu
study-gpu: DEVICE := $(or $(strip $(DEVICE)),cuda)
study-gpu: GPU_SHARE := $(or $(strip $(GPU_SHARE)),0.25)
study-gpu: $(INSTALLED) ## the study at 25 times the size, on one GPU, kept as it goes on; MINUTES=9 a piece
	@for grid in $(STUDY_GPU); do \
		status=0; $(BIN)/python -m sweeps run $$grid $(options) $(device) $(gpu_share) $(bank) $(until) || status=$$?; \
		test ! -f "$(strip $(RESULTS))/$$grid/runs.csv" || $(MAKE) --no-print-directory keep GRID=$$grid; \
		test $$status = 0 || exit $$status; \
		case $$grid in *-rates) $(MAKE) --no-print-directory rates GRID=$$grid;; esac; \
	done

.PHONY: probe
probe: $(INSTALLED) ## ask every finished run of GRID for facts; make plots then draws recall by frequency
	@$(BIN)/python -m core probe $(grid_folder) --results "$(strip $(RESULTS))" $(device)

.PHONY: block
block: $(INSTALLED) ## block parts of the banks of GRID; make plots then draws loss by blocked share
	@$(BIN)/python -m core block $(grid_folder) --results "$(strip $(RESULTS))" $(device)

.PHONY: ui
ui: $(INSTALLED) ## browse the runs in MLflow, on this machine only unless UI_HOST says otherwise
	@test -f "$(strip $(RESULTS))/mlflow.db" || { \
		echo "error: no runs in $(strip $(RESULTS)) yet; make sweep first" >&2; exit 2; }
	@echo "MLflow at http://$(strip $(UI_HOST)):$(strip $(UI_PORT)) (Ctrl-C stops it)"
	@exec $(BIN)/python -m mlflow ui --host "$(strip $(UI_HOST))" --port "$(strip $(UI_PORT))" --workers 1 \
		--backend-store-uri "sqlite:///$$(realpath "$(strip $(RESULTS))")/mlflow.db"

.PHONY: status
status: $(INSTALLED) ## what of GRID is done, stopped, running, diverged, failed, to do; time left
	@$(BIN)/python -m sweeps status $(strip_grid) $(options)

.PHONY: dry-run
dry-run: $(INSTALLED) ## the runs of GRID with parameters, tokens, FLOPs; nothing starts
	@$(BIN)/python -m sweeps dry-run $(strip_grid) $(options) $(bank)

.PHONY: train
train: $(INSTALLED) ## train the one run that CONFIG describes, without Ray
	@test -n "$(strip $(CONFIG))" || { echo "error: say which run: make train CONFIG=file.yaml" >&2; exit 2; }
	@$(BIN)/python -m core train "$(strip $(CONFIG))" --results "$(strip $(RESULTS))" $(device) $(bank)

.PHONY: lint
lint: $(INSTALLED) ## style and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

.PHONY: test
test: lint ## style, types and tests
	@$(BIN)/python -m pytest -n $(strip $(JOBS)) --dist worksteal

.PHONY: test-coverage
test-coverage: $(INSTALLED) ## the long tests: do the intervals cover the truth as often as they say?
	@$(BIN)/python -m pytest -n $(strip $(JOBS)) -m coverage

.PHONY: test-faults
test-faults: $(INSTALLED) ## a quarter of an hour: kill, truncate, lock and fill while a sweep runs
	@$(BIN)/python -m pytest -s -m faults tests/faults

.PHONY: test-services
test-services: $(INSTALLED) ## minutes: Ray clusters that lose a node, trials of two processes, an S3 store, MLflow on PostgreSQL restarted
	@$(PIP) install -r tests/services/requirements.lock
	@$(BIN)/python -m pytest -rs -m services tests/services

.PHONY: test-gpu
test-gpu: $(INSTALLED) ## on a machine with a CUDA GPU: trains there what a CPU trains, on every path
	@$(BIN)/python -m pytest -m gpu tests/gpu

# CUDA packages come with torch where a machine has a GPU, and are not pinned.
freeze = .venv-lock/bin/python -m pip --disable-pip-version-check freeze --all \
	| grep -v -E '^(pip|nvidia-|cuda-|triton)' | sed 's/+.*//'
.PHONY: lock
lock: ## resolve requirements.in anew and write requirements.lock, and that of tests/services
	@rm -rf .venv-lock
	@"$(strip $(PYTHON))" -m venv .venv-lock
	@.venv-lock/bin/python -m pip -qq --disable-pip-version-check install -r requirements.in
	@$(freeze) > requirements.lock.partial
	@.venv-lock/bin/python -m pip -qq --disable-pip-version-check install \
		-r tests/services/requirements.in -c requirements.lock.partial
	@$(freeze) | grep -vxFf requirements.lock.partial > tests/services/requirements.lock
	@mv requirements.lock.partial requirements.lock
	@rm -rf .venv-lock

.PHONY: clean
clean: ## remove environment and caches; tables, records, checkpoints and MLflow's store stay
	@rm -rf .venv .venv-lock .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	@find core sweeps analysis tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
	@rm -rf "$(strip $(RESULTS))/cache"
	@echo "removed .venv and caches; kept $(strip $(RESULTS))/: tables, runs/ and mlflow.db"
