# Every target sets up its own environment in .venv first: Python ≥ 3.11 and make are all a fresh machine needs.
SHELL := /bin/bash
.SHELLFLAGS := +B -c # no brace expansion: shards-{0..4}.tar in ARGS is a pattern of ours
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SYSTEM_PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

# MODEL=, DATASET= and FEATURES= choose for any paper target; ARGS= passes further overrides on.
MODEL ?= emojiclip
DATASET ?= openmoji
FEATURES ?= [raw,sae,ncl]
ARGS ?=
RUN = $(BIN)/python experiments/$(1).py model=$(MODEL) dataset=$(DATASET) 'features=$(FEATURES)' $(ARGS)

.PHONY: help setup demo test lint format benchmark clean section-2.1 section-2.2 section-2.3 section-3 section-4.1 section-4.2 appendix-a.1 validate

help: ## Show this list
	@grep -hE '^[a-z0-9.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(READY) ## Make the environment in .venv

$(READY): pyproject.toml constraints.txt
	@test -n "$(SYSTEM_PYTHON)" || { echo "error: Python 3.11 or newer is needed, none found" >&2; exit 1; }
	@test -x $(BIN)/python || $(SYSTEM_PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY) ## OpenMoji → EmojiCLIP → features → SAE and NCL → modality dominance, with figures (sections 2.1, 3.1)
	@$(BIN)/python experiments/train.py 'features=[sae,ncl]' $(ARGS)
	@$(BIN)/python experiments/mds.py 'features=[raw,sae,ncl]' $(ARGS)

section-2.1: $(READY) ## Modality dominance scores, partition and Figure 4, and how sure they are
	@$(call RUN,mds)
	@$(call RUN,certainty)

section-2.2: $(READY) ## Classification with features removed (Table 1)
	@$(call RUN,ablation)

section-2.3: $(READY) ## Top samples and contact sheets (Figures 1 to 3)
	@$(call RUN,top_samples)

section-3: $(READY) ## Monosemanticity (Figures 5, 6, 13, Tables 4, 5), and what the features keep
	@$(call RUN,interpretability)
	@$(call RUN,faithfulness)

section-4.1: FEATURES = sae
section-4.1: $(READY) ## Gender, or another concept pair, in images and texts (Table 2, Figure 7, Table 6)
	@$(call RUN,gender)

section-4.2: FEATURES = raw
section-4.2: $(READY) ## Attacks on the image encoder, and which features defend against them (Table 3, Figure 8)
	@$(call RUN,adversarial)

appendix-a.1: FEATURES = [sae,ncl]
appendix-a.1: $(READY) ## Dictionaries and their active dimensions over training (Figures 11, 12)
	@$(call RUN,train)

validate: $(READY) ## Planted concepts: does the method find what was put there? (5 minutes; ARGS=validate.quick=true 1)
	@$(BIN)/python experiments/validate.py $(ARGS)

test: $(READY) ## Run the tests
	@$(BIN)/python -m pytest

lint: $(READY) ## Style, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY) ## Let ruff put the code in shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

benchmark: $(READY) ## Speed as ratios to what limits it
	@for b in train_sae lightning_overhead feature_store interpretability; do $(BIN)/python benchmarks/$$b.py; done

clean: ## Remove what was computed (artifacts/), not the environment
	rm -rf artifacts
