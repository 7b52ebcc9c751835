# Portal's few chores. `make up` and `make test` each set up all they need; the README says what Debian needs first.

PYTHON ?= python3
PY = .venv/bin/python
# uv is quick and compiles what it installs; where it cannot be had, pip does the same, slowly.
install = ($(PY) -m pip install -q uv && $(PY) -m uv pip install -q --system-certs --compile-bytecode --python $(PY) -r $<) \
	|| $(PY) -m pip install -q -r $<
# Checks know nothing of the Portal that may be running here.
checks = DJANGO_SETTINGS_MODULE=tests.settings $(PY)

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 14

up: .venv/.ready ## serve Portal on http://localhost:3000, until Ctrl-C
	@exec $(PY) manage.py up

stop: .venv/.ready ## stop the embedded PostgreSQL, which outlives `make up`
	@$(PY) -m portal.embedded

backup: .venv/.ready ## write everything to FILE=portal.dump
	@$(PY) -m portal.backup backup "$(FILE)"

restore: .venv/.ready ## read FILE=portal.dump into an empty database
	@$(PY) -m portal.backup restore "$(FILE)"

test: .venv/.ready-dev ## run all tests; as root, with the Debian packages they need
	@scripts/test_tools
	@exec $(PY) -m pytest -n 2 --dist loadgroup

lint: .venv/.ready-dev ## look for mistakes without running anything
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	git ls-files -z --cached --others --exclude-standard 'templates/*.html' | xargs -0r .venv/bin/djade --check
	$(checks) scripts/check_templates.py
	$(checks) manage.py check
	$(checks) manage.py makemigrations --check --dry-run

bench: .venv/.ready-dev ## measure, and print the ratios
	@exec $(PY) -m tests.benchmarks

lock: .venv/.ready-dev ## pin requirements*.txt anew from pyproject.toml
	$(PY) scripts/lock.py

clean: ## remove the venv and caches; .portal, with the data, stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis test-results
	find . -name __pycache__ -not -path './.portal/*' -prune -exec rm -rf {} +

.venv/.ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Portal needs Python 3.11 or newer: make PYTHON=python3.12 up")'
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo "Installing $< ..."
	@$(install)
	@touch $@

.venv/.ready-dev: requirements-dev.txt .venv/.ready
	@echo "Installing $< ..."
	@$(install)
	@touch $@

.PHONY: help up stop backup restore test lint bench lock clean
