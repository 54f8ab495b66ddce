# make reproduce   the environment, then the selected study (params.yaml) to its report, then the replication's report
# make test        the environment, then every check and test
# make lock        exact versions of everything that pyproject.toml asks for, resolved anew

.PHONY: reproduce test environment lock

export PATH := $(CURDIR)/.venv/bin:$(PATH)

reproduce: environment
	.venv/bin/snakemake --cores all

test: environment
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/snakefmt --check Snakefile
	.venv/bin/mypy
	.venv/bin/pytest

environment: .venv/made

# The stamp is older than the lock when the lock has changed: then the environment follows it.
.venv/made: requirements.lock pyproject.toml
	python3 -m venv .venv
	.venv/bin/python -m pip install --disable-pip-version-check --quiet --requirement requirements.lock
	.venv/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --editable .
	touch $@

# Without pip itself, this package, and the CUDA libraries: PyTorch names the versions of those, for the platforms that
# have them.
lock:
	python3 -m venv --clear .venv/lock
	.venv/lock/bin/python -m pip install --disable-pip-version-check --quiet '.[evidence,engines,deploy,notebooks,dev]'
	.venv/lock/bin/python -m pip freeze --all --exclude pip --exclude trained-binarization \
		| grep --invert-match --extended-regexp '^(nvidia|cuda|triton)' > requirements.lock
	rm -r .venv/lock
