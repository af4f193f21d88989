# Every target sets up its own environment in .venv first: Python ≥ 3.11 and make are all a fresh machine needs.
SHELL := /bin/bash
.SHELLFLAGS := +B -c # no brace expansion: shards-{0..4}.tar in ARGS is a pattern of ours
# uv compiles nothing at installation. Where this is set, as in many containers, each process would compile all of PyTorch again.
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV := $(VENV)/.dev
SYSTEM_PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

# MODEL=, DATASET= and FEATURES= choose for any paper target; ARGS= passes further overrides on. Those of one call share
# ARGS=: each entrypoint takes the settings that it has; one that none of them has is an error.
# Without MODEL= it is drawingclip, but for DATASET=store, whose embeddings are those of a model that only you know.
MODEL ?=
DATASET ?= openmoji
ARGS ?=
# With the paper's own model and data its own settings are used too (conf/paper); EXACT= and EXACT=yes say otherwise.
# What it did on COCO needs the folder of that, COCO=.
EXACT ?= $(if $(filter clip_rn50-cc3m,$(MODEL)-$(DATASET)),yes)
COCO ?=
# A plan is of `make paper`, or of the targets in FOR=.
FOR ?=
JOBS ?= 2
TIME ?= 600
PAIRS = $(if $(MODEL),model=$(MODEL)) dataset=$(DATASET)
ON = $(PAIRS) $(if $(FEATURES),'features=$(FEATURES)')
# What a target runs is declared with the analyses in mmmono/analyses.
RUN = $(BIN)/python -m mmmono.commands.make $@ --all '$(MAKECMDGOALS)' $(if $(EXACT),--exact) $(if $(COCO),--coco '$(COCO)') \
	$(if $(FOR),--for '$(FOR)') \
	-- $(ON) $(ARGS)
INSTALL = VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --constraint constraints.txt --editable
# One process more than there are cores, since tests of several processes wait for them.
TESTERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
TEST = $(BIN)/python -m pytest --numprocesses $(TESTERS) --maxprocesses 4 --dist worksteal
.PHONY: help setup setup-dev demo paper plan report explorer validate objectives consensus names concepts consequences
.PHONY: steering trainings sweep dashboard docs test test-quick test-least coverage fuzz rehearse chaos
.PHONY: lint format benchmark calibrate clean FORCE

help: ## Show this list
	@grep -hE '^[a-z0-9.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16
	@echo
	@if test -f $(READY); then $(BIN)/python -m mmmono.commands.make --list; \
		else echo "and a target for each section of the paper, which make help lists after make setup"; fi

setup: $(READY) ## Make the environment in .venv

setup-dev: $(DEV) ## Add to it what tests and develops mmmono, as the targets that need it do by themselves

$(READY): pyproject.toml constraints.txt
	@test -n "$(SYSTEM_PYTHON)" || { echo "error: Python 3.11 or newer is needed, none found" >&2; exit 1; }
	@test -x $(BIN)/python || $(SYSTEM_PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(INSTALL) '.[all]'
	@touch $@

$(DEV): $(READY)
	@$(INSTALL) '.[dev]'
	@touch $@

demo: $(READY) ## OpenMoji → DrawingCLIP → features → SAE and NCL → modality dominance, with figures (sections 2.1, 3.1)
	@$(RUN)

section-%: $(READY) FORCE
	@$(RUN)

appendix-%: $(READY) FORCE
	@$(RUN)

paper: $(READY) ## All sections, with their report; MODEL=clip_rn50 DATASET=cc3m is the full reproduction
	@$(RUN)

plan: $(READY) ## What `make paper`, or FOR='names consequences', would compute, what is there already, and its room on disk
	@$(RUN)

report: $(READY) ## All results there are on one page, beside the paper's, with tables in Markdown and LaTeX
	@$(RUN)

explorer: $(READY) ## A page to click from the distribution of scores to a feature to its images
	@$(RUN)

validate: $(READY) ## Does the method find known concepts? (7 minutes; ARGS=validate.quick=true 1)
	@$(BIN)/python experiments/validate.py $(ARGS)

objectives: $(READY) ## Objectives for pairs over seeds, on MODEL= and DATASET= (8 minutes), and on known concepts (8)
	@$(RUN)

consensus: $(READY) ## What dictionaries of other seeds find: trains three more of each (minutes); the explorer then shows it too
	@$(RUN)

names: $(READY) ## What each feature is called, and whether its name tells where it is active (a minute); the explorer then shows it
	@$(RUN)

concepts: $(READY) ## Which feature detects each label of the dataset, beside a random rotation
	@$(RUN)

consequences: $(READY) ## What retrieval loses without each class of features, or without single ones, beside random ones like them
	@$(RUN)

steering: $(READY) ## What a text finds when one of its features is set: how far the feature moves, and what stays
	@$(RUN)

trainings: $(READY) ## Which differences stand over five trainings: of consequences, or of ARGS=analysis=gender, names, ablation, steering
	@$(RUN)

sweep: $(READY) ## Twelve SAEs, JOBS= at a time, and what came out; run again, it goes on where it was killed
	@MMMONO_TOGETHER='train sweep' $(BIN)/python experiments/train.py -m hydra/launcher=joblib hydra.launcher.n_jobs=$(JOBS) \
		$(PAIRS) features=sae features.k=8,16,32 features.expansion=1,2 sae.lr=1e-3,3e-3 $(ARGS)
	@MMMONO_TOGETHER='train sweep' $(BIN)/python experiments/sweep.py $(PAIRS) features=sae $(ARGS)

dashboard: $(READY) ## A W&B workspace with a section of panels for each section of the paper
	@$(BIN)/python experiments/dashboard.py $(ARGS)

docs: $(DEV) ## The pages of docs/ and the reference of all functions as a site: build/docs/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

rehearse: $(DEV) ## The whole paper with small models against a hub on loopback; FAULTS=1: again on a bad network, same results
	@$(BIN)/python -m tests.rehearsal $(if $(FAULTS),--faults) $(if $(QUICK),--quick)

test: $(DEV) ## Run the tests
	@$(TEST)

test-quick: $(DEV) ## Run the tests that are not marked as slow
	@$(TEST) -m 'not slow'

test-least: $(DEV) ## The tests that are not slow with the least versions of packages that pyproject.toml allows, in build/least
	@$(BIN)/python -m venv --clear build/least
	@VIRTUAL_ENV=$(CURDIR)/build/least $(BIN)/uv pip install --quiet --resolution lowest-direct --editable '.[dev]'
	@build/least/bin/python $(wordlist 2,99,$(TEST)) -m 'not slow'

coverage: $(DEV) ## Run the tests, and show which lines of mmmono they do not reach; also in build/coverage
	@$(TEST) --cov --cov-report=term:skip-covered --cov-report=html --cov-report=xml

fuzz: $(DEV) ## Property tests with new seeds for ten minutes (TIME=, in seconds), and a table of what they tried
	@$(BIN)/python -m tests.fuzz --seconds $(TIME)

lint: $(DEV) ## Style, types, the direction of imports, whether pyproject.toml declares what is imported, and the JavaScript
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/deptry .
	@$(BIN)/oxlint --deny-warnings mmmono
	@$(BIN)/oxfmt --check mmmono

format: $(DEV) ## Let ruff and oxfmt put the code in shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/oxfmt mmmono

benchmark: $(DEV) ## Speed as ratios to what limits it
	@for b in train_sae lightning_overhead feature_store interpretability; do $(BIN)/python benchmarks/$$b.py; done

chaos: $(DEV) ## Kill every kind of work with -9 at twenty random moments and compare its results with undisturbed ones
	@$(BIN)/python -m tests.chaos $(ARGS)

calibrate: $(DEV) ## How often intervals cover and tests err, each in the regime it is used in; ARGS=--simulations=1000 is quicker
	@$(BIN)/python -m tests.calibration $(ARGS)

clean: ## Remove what was computed (artifacts/), not the environment
	rm -rf artifacts
