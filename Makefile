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
# With the paper's own model and data its own settings are used too (conf/paper); EXACT= and EXACT=yes say otherwise.
# What it did on COCO needs the folder of that, COCO=.
EXACT ?= $(if $(filter clip_rn50-cc3m,$(MODEL)-$(DATASET)),yes)
COCO ?=
JOBS ?= 2
TIME ?= 600
ON = model=$(MODEL) dataset=$(DATASET)
# The paper's settings choose the features as well, unless FEATURES= is given.
GIVEN_FEATURES = $(filter command environment,$(firstword $(origin FEATURES)))
FROM = $(if $(EXACT),$(if $(GIVEN_FEATURES),'features=$(FEATURES)'),'features=$(FEATURES)')
# Table 1 and Figure 10 have a model and features of their own, which FEATURES= changes only where they alone are asked for.
FROM_OWN = $(if $(filter $@,$(MAKECMDGOALS)),$(FROM))
# The entrypoints of each goal, with the option of conf/paper that they use for the paper's own settings. Those of one call
# share ARGS=: each takes the settings that it has; one that none of them has is an error (mmmono/pipeline/shared_settings.py).
STEPS.demo = train mds
STEPS.sweep = train sweep
STEPS.section-2.1 = mds:figure4 certainty
STEPS.section-2.2 = ablation:table1
STEPS.section-2.3 = top_samples:figure1
STEPS.section-2 = $(STEPS.section-2.1) $(STEPS.section-2.2) $(STEPS.section-2.3)
STEPS.section-3 = interpretability:table5 faithfulness
STEPS.section-4.1 = gender:table2
STEPS.section-4.2 = adversarial:table3
STEPS.section-4.3 = text_to_image:figure10
STEPS.section-4 = $(STEPS.section-4.1) $(STEPS.section-4.2) $(STEPS.section-4.3)
STEPS.appendix-a.1 = train:figure11
STEPS.appendix-a.2 = mds:figure4
STEPS.appendix-a.3 = interpretability:table5
STEPS.appendix-a.4 = $(STEPS.section-4)
STEPS.report = report
STEPS.explorer = explorer
STEPS.paper = plan $(STEPS.appendix-a.1) $(STEPS.section-2) $(STEPS.section-3) $(STEPS.section-4) report
STEPS.plan = $(STEPS.paper)
RUNNING = $(sort $(foreach goal,$(MAKECMDGOALS),$(STEPS.$(goal))))
ENTRYPOINTS = $(if $(EXACT),$(RUNNING),$(foreach step,$(RUNNING),$(firstword $(subst :, ,$(step)))))
TOGETHER = MMMONO_TOGETHER='$(ENTRYPOINTS) $(ON)$(if $(GIVEN_FEATURES), "features=$(FEATURES)")'
PYTHON = $(TOGETHER) $(BIN)/python
TEST = $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal
# $(call RUN,entrypoint,option of conf/paper)
RUN = $(PYTHON) experiments/$(1).py $(if $(and $(EXACT),$(2)),+paper=$(2)) $(ON) $(FROM) $(ARGS)

.PHONY: help setup demo test fuzz lint format benchmark clean validate section-2 section-2.1 section-2.2 section-2.3 section-3
.PHONY: section-4 section-4.1 section-4.2 section-4.3 appendix-a.1 appendix-a.2 appendix-a.3 appendix-a.4 plan paper sweep dashboard docs

help: ## Show this list
	@grep -hE '^[a-z0-9.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(READY) ## Make the environment in .venv

$(READY): pyproject.toml constraints.txt
	@test -n "$(SYSTEM_PYTHON)" || { echo "error: Python 3.11 or newer is needed, none found" >&2; exit 1; }
	@test -x $(BIN)/python || $(SYSTEM_PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	@touch $@

demo: $(READY) ## OpenMoji → EmojiCLIP → features → SAE and NCL → modality dominance, with figures (sections 2.1, 3.1)
	@$(PYTHON) experiments/train.py 'features=[sae,ncl]' $(ARGS)
	@$(PYTHON) experiments/mds.py 'features=[raw,sae,ncl]' $(ARGS)

section-2: section-2.1 section-2.2 section-2.3 ## All of section 2

section-2.1: $(READY) ## Modality dominance scores, partition and Figure 4, and how sure they are
	@$(call RUN,mds,figure4)
	@$(call RUN,certainty)

section-2.2: $(READY) ## Classification with features removed (Table 1)
ifneq ($(EXACT),)
	@$(if $(COCO),$(PYTHON) experiments/ablation.py +paper=table1 $(FROM_OWN) $(ARGS) 'dataset.root=$(COCO)',\
		echo "left out: Table 1 is ViT-H/14 on COCO, give its folder as COCO=/path/to/coco")
else
	@$(call RUN,ablation)
endif

section-2.3: $(READY) ## Top samples and contact sheets (Figures 1 to 3)
	@$(call RUN,top_samples,figure1)

section-3: $(READY) ## Monosemanticity (Figures 5, 6, 13, Tables 4, 5), and what the features keep
	@$(call RUN,interpretability,table5)
	@$(call RUN,faithfulness)

section-4: section-4.1 section-4.2 section-4.3 ## All case studies

section-4.1: FEATURES = sae
section-4.1: $(READY) ## Gender, or another concept pair, in images and texts (Table 2, Figure 7, Table 6)
	@$(call RUN,gender,table2)

section-4.2: FEATURES = raw
section-4.2: $(READY) ## Attacks on the image encoder, and which features defend against them (Table 3, Figure 8)
	@$(call RUN,adversarial,table3)

section-4.3: FEATURES = [raw,sae]
section-4.3: $(READY) ## Features of a reference picture in what a generator draws (Figures 10, 14)
	@$(if $(EXACT),$(PYTHON) experiments/text_to_image.py +paper=figure10 dataset=$(DATASET) $(FROM_OWN) $(ARGS),\
		$(call RUN,text_to_image))

appendix-a.1: FEATURES = [sae,ncl]
appendix-a.1: $(READY) ## Dictionaries and their active dimensions over training (Figures 11, 12)
	@$(call RUN,train,figure11)

appendix-a.2: $(READY) ## Modality dominance scores alone (Figure 4)
	@$(call RUN,mds,figure4)

appendix-a.3: $(READY) ## Monosemanticity alone (Tables 4, 5, Figure 13)
	@$(call RUN,interpretability,table5)

appendix-a.4: section-4 ## The case studies

plan: $(READY) ## What `make paper` would compute, what is there already, and its room on disk
	@$(PYTHON) experiments/plan.py $(ON) $(FROM) $(ARGS) $(if $(EXACT),plan.exact=true $(if $(COCO),'plan.coco=$(COCO)'))

paper: plan appendix-a.1 section-2 section-3 section-4 report ## Everything, with its report; MODEL=clip_rn50 DATASET=cc3m is the full reproduction

sweep: $(READY) ## Twelve SAEs, JOBS= at a time, and what came out; run again, it goes on where it was killed
	@$(PYTHON) experiments/train.py -m hydra/launcher=joblib hydra.launcher.n_jobs=$(JOBS) $(ON) features=sae \
		features.k=8,16,32 features.expansion=1,2 sae.lr=1e-3,3e-3 $(ARGS)
	@$(PYTHON) experiments/sweep.py $(ON) features=sae $(ARGS)

dashboard: $(READY) ## A W&B workspace with a section of panels for each section of the paper
	@$(BIN)/python experiments/dashboard.py $(ARGS)

docs: $(READY) ## API reference from docstrings, in build/docs
	@$(BIN)/pdoc --docformat google --output-directory build/docs mmmono

.PHONY: report explorer rehearse chaos test-quick coverage

report: $(READY) ## All results there are on one page, beside the paper's, with tables in Markdown and LaTeX
	@$(call RUN,report)

explorer: $(READY) ## A page to click from the distribution of scores to a feature to its pictures
	@$(call RUN,explorer)

validate: $(READY) ## Planted concepts: does the method find what was put there? (5 minutes; ARGS=validate.quick=true 1)
	@$(BIN)/python experiments/validate.py $(ARGS)

rehearse: $(READY) ## The whole paper with small models against a hub on loopback; FAULTS=1: again on a bad network, same results
	@$(BIN)/python -m tests.rehearsal $(if $(FAULTS),--faults) $(if $(QUICK),--quick)

test: $(READY) ## Run the tests
	@$(TEST)

test-quick: $(READY) ## Run the tests that are not marked as slow
	@$(TEST) -m 'not slow'

coverage: $(READY) ## Run the tests, and show which lines of mmmono they do not reach; also in build/coverage
	@$(TEST) --cov --cov-report=term:skip-covered --cov-report=html --cov-report=xml

fuzz: $(READY) ## Property tests with new seeds for ten minutes (TIME=, in seconds), and a table of what they tried
	@$(BIN)/python -m tests.fuzz --seconds $(TIME)

lint: $(READY) ## Style, types, the direction of imports, and whether pyproject.toml declares what is imported
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/deptry .

format: $(READY) ## Let ruff put the code in shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

benchmark: $(READY) ## Speed as ratios to what limits it
	@for b in train_sae lightning_overhead feature_store interpretability; do $(BIN)/python benchmarks/$$b.py; done

chaos: $(READY) ## Kill every kind of work with -9 at twenty random moments and compare its results with undisturbed ones
	@$(BIN)/python -m tests.chaos $(ARGS)

clean: ## Remove what was computed (artifacts/), not the environment
	rm -rf artifacts
