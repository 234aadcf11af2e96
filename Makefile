# Two commands do everything: `make compare` and `make test`. Each sets itself up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Installed when this file is newer than what was installed from.
READY := $(VENV)/ready
READY_DEV := $(VENV)/ready-dev
comma := ,
SOURCES := pyproject.toml constraints.txt

# PyTorch's threads wait for each other by spinning. Tests run side by side, and threads
# that spin keep the cores from those that work; this makes them sleep sooner.
test slow: export GOMP_SPINCOUNT ?= 10000
# Tests start hundreds of processes, which need not compile the same modules again.
test slow: export PYTHONDONTWRITEBYTECODE =

# Told before pip takes what it finds, which without such an index is CUDA's build.
BUILDS := https://download.pytorch.org/whl/cpu
DRIVER ?= /proc/driver/nvidia/version
define SMALLER
@if [ "$$(uname -s)" = Linux ] && [ ! -e $(DRIVER) ] && [ -z "$$PIP_EXTRA_INDEX_URL" ]; then \
    echo "no NVIDIA driver is here; should pip bring PyTorch's build for CUDA, several GB,"; \
    echo "stop it and type: PIP_EXTRA_INDEX_URL=$(BUILDS) make $(firstword $(MAKECMDGOALS))"; \
fi
endef

.PHONY: help compare test slow check docs format wheel release clean

help: ## list what can be made
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

compare: $(READY) ## the main job, quick: two frameworks, 2 epochs, 1 seed, and a proof
	@$(BIN)/paripassu compare --quick $(if $(FRAMEWORKS),--frameworks $(FRAMEWORKS)) \
	    --out $(if $(FRAMEWORKS),runs/quick-$(subst $(comma),-,$(FRAMEWORKS)),runs/quick)

test: $(READY_DEV) ## all tests but the slow ones
	@$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

slow: $(READY_DEV) ## the slow tests
	@$(BIN)/python -m pytest -m slow -n 3 --dist worksteal

check: $(READY_DEV) ## format, lint, types, generated files
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python tools/generate_docs.py --check

docs: export NO_MKDOCS_2_WARNING = 1

docs: $(READY_DEV) ## the web site of the documentation, in site/; open site/index.html
	@$(BIN)/mkdocs build --strict --quiet

format: $(READY_DEV) ## put the code in its format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# Of the last commit, so that the same sources are the same bytes.
wheel: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct)

wheel: $(READY_DEV) ## a wheel in dist/, the same bytes from the same commit
	@rm -rf build
	@chmod -R u=rwX,go=rX src pyproject.toml README.md LICENSE
	@umask 022 && $(BIN)/python -m pip wheel --quiet --no-build-isolation --no-deps \
	    --wheel-dir dist .

release: wheel ## a wheel and an sdist in dist/, each tried in an empty environment
	@umask 022 && $(BIN)/python tools/release.py

clean: ## remove the environment and caches, not the runs
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/created:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "Python 3.11 to 3.13 is needed, and this is %d.%d. Type: make PYTHON=python3.11" % v)'
	@echo "making the environment $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(READY): $(VENV)/created $(SOURCES)
	@echo "installing the pinned versions (about 90 seconds, once) ..."
	$(SMALLER)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[all]'
	@touch $@

# Has all of READY, so that nothing is installed twice where there is neither.
$(READY_DEV): $(VENV)/created $(SOURCES)
	@echo "installing the pinned versions and the development tools ..."
	$(SMALLER)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[all,dev]'
	@touch $(READY) $@
