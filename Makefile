# Common tasks. `make up` and `make test` install everything they need, except for the Debian packages in the README.

PYTHON ?= python3
PY = .venv/bin/python
# uv is fast and compiles what it installs. If it isn't available, use pip, which is slower.
# Both refuse a file that does not have one of the hashes in the list.
install = ($(PY) -m pip install -q --require-hashes -r requirements-uv.txt \
	&& $(PY) -m uv pip install -q --system-certs --compile-bytecode --require-hashes --python $(PY) -r $<) \
	|| $(PY) -m pip install -q --require-hashes -r $<
# The checks don't use the settings of a Portal that is running here.
checks = DJANGO_SETTINGS_MODULE=tests.settings $(PY)

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

up: .venv/.ready ## serve Portal at http://localhost:3000 until Ctrl-C
	@exec $(PY) manage.py up

install: .venv/.ready ## as root, install Portal as services of systemd; again after git pull
	@scripts/install

stop: .venv/.ready ## stop the embedded PostgreSQL, which keeps running after `make up`
	@$(PY) -m portal.embedded

clean-old: .venv/.ready ## delete the database of an earlier Portal, which the upgrade has moved aside
	@$(PY) -m portal.embedded clean-old

backup: .venv/.ready ## back up the database to FILE=portal.dump
	@$(PY) -m portal.backup backup "$(FILE)"

restore: .venv/.ready ## restore FILE=portal.dump into an empty database
	@$(PY) -m portal.backup restore "$(FILE)"

test: .venv/.ready-dev ## run all tests; as root, also install the Debian packages they need
	@scripts/test_tools
	@exec $(PY) -m pytest -n 2 --dist loadgroup

lint: .venv/.ready-dev ## check code style, types, templates and migrations
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	git ls-files -z --cached --others --exclude-standard 'templates/*.html' | xargs -0r .venv/bin/djade --check
	$(checks) scripts/check_templates.py
	$(checks) manage.py check
	$(checks) manage.py makemigrations --check --dry-run

bench-fill: .venv/.ready-dev ## fill a new Portal in DIRECTORY with 1,000,000 held ports, to measure and to look at
	@exec $(PY) -m tests.benchmarks.fill $(or $(DIRECTORY),$(error Name a new directory: make bench-fill DIRECTORY=/var/tmp/fleet))

bench: .venv/.ready-dev ## run the benchmarks, and compare with the commit BASE, by default the one before
	@BENCH_BASE=$(BASE) exec $(PY) -m tests.benchmarks

schema: .venv/.ready ## update allocations/sql/schema.sql from the migrations
	@$(PY) scripts/schema.py

lock: .venv/.ready-dev ## update requirements*.txt from pyproject.toml
	$(PY) scripts/lock.py

clean: ## remove the virtual environment and caches, but not the data in .portal
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis test-results
	find . -name __pycache__ -not -path './.portal/*' -prune -exec rm -rf {} +

.venv/.ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Portal needs Python 3.11 or newer, for example: make PYTHON=python3.12 up")'
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo "Installing $< ..."
	@$(install)
	@touch $@

.venv/.ready-dev: requirements-dev.txt .venv/.ready
	@echo "Installing $< ..."
	@$(install)
	@touch $@

.PHONY: help up install stop clean-old backup restore test lint bench bench-fill schema lock clean
