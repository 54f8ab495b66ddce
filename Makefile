# make reproduce   the environment, then the selected study (params.yaml) to its report; what was found, and whether it
#                  agrees with the reference evidence (exit status 1 where it differs)
# make test        the environment, then every check and test
# make check       the environment, lint, types, and the tests that need no engine, browser or cluster
# make lock        exact versions of everything that pyproject.toml asks for, resolved anew

.PHONY: reproduce check test environment lock

export PATH := $(CURDIR)/.venv/bin:$(PATH)

reproduce: environment
	.venv/bin/snakemake --cores all --quiet rules progress reason host
	@.venv/bin/trained-binarization status

test: environment
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/snakefmt --check Snakefile
	.venv/bin/mypy
	.venv/bin/pytest

check: environment
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/snakefmt --check Snakefile
	.venv/bin/mypy
	.venv/bin/pytest --numprocesses auto -m "not engine" --ignore tests/end_to_end --ignore tests/evidence/test_browser.py

environment: .venv/made

# The stamp is older than the lock when the lock has changed: then the environment follows it.
.venv/made: requirements.lock pyproject.toml
	@python3 -c 'import sys; v = sys.version_info[:3]; sys.exit(not (3, 11, 5) <= v < (3, 13) and \
		"error: python3: found %d.%d.%d; the lock is for 3.11 from 3.11.5 on, or 3.12: put such a python3 first in PATH" % v)'
	python3 -m venv .venv
	.venv/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes --requirement requirements.lock
	.venv/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --editable .
	touch $@

# For every platform, with the hashes of every file of a version: pip takes no other. PyTorch's own index has CPU-only
# builds with other hashes: to take one, install it and the rest of the lock without --require-hashes.
lock:
	python3 -m venv --clear .venv/lock
	.venv/lock/bin/python -m pip install --disable-pip-version-check --quiet uv
	.venv/lock/bin/uv pip compile --quiet --upgrade --universal --generate-hashes --no-annotate --no-header \
		--python-version 3.11.5 --all-extras --output-file requirements.lock pyproject.toml
	rm -r .venv/lock
