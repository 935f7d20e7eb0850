# setup: .venv with all that this machine can use (see .ci/setup.py); nothing is done while pyproject.toml is unchanged
# demo:  a small model gets better at a tool task from its own experience, about nine minutes on two cores
# test:  the tests, with vLLM really serving where it is installed
# lint, types: ruff and mypy
#
# PYTHON=/path/to/python3.12 chooses another Python; ARGUMENTS="-k trace" goes to pytest, WORKERS=0 runs the tests in one process.

.PHONY: setup demo test lint types format
.DEFAULT_GOAL := help

# Containers often set this, and then every process compiles torch and vLLM anew, which takes ten seconds each time.
unexport PYTHONDONTWRITEBYTECODE

AT_LEAST_311 = import sys; sys.exit(sys.version_info < (3, 11))
BIN = .venv/bin
WORKERS = 2

help:
	@sed -n 's/^# //p; /^$$/q' Makefile

setup:
	@found=""; \
	for python in $(PYTHON) python3 python3.11 python3.12 python3.13 python3.14 python; do \
		if $$python -c '$(AT_LEAST_311)' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "agentloop needs Python 3.11 or newer; found: `python3 --version 2>&1 | tail -1`." >&2; \
		echo "Install one from https://www.python.org/downloads, or name one: make setup PYTHON=/path/to/python3.12" >&2; \
		exit 1; \
	fi; \
	$$found -I .ci/setup.py

demo: setup
	@$(BIN)/agentloop run recipes/quickstart.yaml

test: setup
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGUMENTS)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: setup
	@$(BIN)/mypy
