.DEFAULT_GOAL := help
.PHONY: help setup try demo pretrained notebooks test test-slow docs bench-laq bench-foundation bench-policies bench-few-labels bench-gpu bench-scale package lint audit format constraints clean

PYTHON := .venv/bin/python
# The stamp's name holds a checksum of all files that set-up depends on. If one of them changes, the stamp of the new name
# is missing, and make runs set-up again.
STAMP := .venv/.stamp-$(shell cat pyproject.toml constraints.txt scripts/setup.sh scripts/system_packages.py | cksum | cut -d ' ' -f 1)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv and install all packages (the other targets run this when needed)
	@echo "Set up: .venv holds the pinned packages"

$(STAMP):
	@bash scripts/setup.sh
	@rm -f .venv/.stamp-*
	@touch $@

try: $(STAMP) ## Evaluate the shipped policy and write a page, in two minutes; flags go in ARGS="--name=value ..."
	@$(PYTHON) -m scripts.try_pretrained $(ARGS)

demo: $(STAMP) ## Run the whole pipeline on a laptop; flags go in ARGS="--name=value ..."
	@.venv/bin/hlrp-demo $(ARGS)

pretrained: $(STAMP) ## Train the models of pretrained/ again (half an hour, resumable)
	@$(PYTHON) -m scripts.pretrained $(ARGS)

notebooks: $(STAMP) ## Run the notebooks and keep their outputs
	@$(PYTHON) -m scripts.run_notebooks

test: $(STAMP) ## Run the fast tests on all cores; pytest flags go in ARGS
	$(PYTHON) -m pytest -m "not slow" -n auto $(ARGS)

test-slow: $(STAMP) ## Run the tests that train or simulate; pytest flags go in ARGS
	$(PYTHON) -m pytest -m slow $(ARGS)

docs: $(STAMP) ## Build the documentation into build/site, offline; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict $(ARGS)
	@echo "Open build/site/index.html"

bench-laq: $(STAMP) ## Measure stage 1 and write outputs/benchmarks/laq.json; with ARGS=--quick a rough run of ten minutes
	$(PYTHON) -m benchmarks.laq $(ARGS)

bench-foundation: $(STAMP) ## Measure stage 2 and write outputs/benchmarks/foundation.json; with ARGS=--quick a rough, short run
	$(PYTHON) -m benchmarks.foundation $(ARGS)

bench-policies: $(STAMP) ## Measure stage 3 and write outputs/benchmarks/policies.json; with ARGS=--quick a rough run of half an hour
	$(PYTHON) -m benchmarks.policies $(ARGS)

bench-few-labels: $(STAMP) ## Measure success over the number of labelled episodes (10 core-hours, resumable); with ARGS=--quick 40 to 50 minutes
	$(PYTHON) -m benchmarks.few_labels $(ARGS)

bench-gpu: $(STAMP) ## Measure speed on one GPU beside what it allows, in 15 minutes; with ARGS=--quick tiny models on any machine
	$(PYTHON) -m benchmarks.gpu_record $(ARGS)

bench-scale: $(STAMP) ## Measure labels at scale and write outputs/benchmarks/scale.json; with ARGS=--quick a rough, short run
	$(PYTHON) -m benchmarks.scale $(ARGS)

package: $(STAMP) ## Build wheel and source distribution, and try them in an empty environment
	$(PYTHON) scripts/check_package.py

lint: $(STAMP) ## Check style, formatting and types
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m pyright

audit: $(STAMP) ## Look up known vulnerabilities of the installed packages (needs the network)
	@$(PYTHON) scripts/audit.py

format: $(STAMP) ## Format the code and fix what ruff can fix
	$(PYTHON) -m ruff check --fix
	$(PYTHON) -m ruff format

constraints: $(STAMP) ## Pin the newest allowed versions in constraints.txt
	@head -n 1 constraints.txt > .venv/constraints.txt
	@$(PYTHON) -m uv pip compile --quiet --python $(PYTHON) --upgrade --no-annotate --no-header --extra all --extra pusht pyproject.toml >> .venv/constraints.txt
	@mv .venv/constraints.txt constraints.txt

clean: ## Remove caches and build leftovers; .venv and outputs stay
	rm -rf build dist .pytest_cache .ruff_cache src/*.egg-info
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
