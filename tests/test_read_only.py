"""A results folder that cannot be written to: what needs no writing works, the rest is one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import REPOSITORY, Outcome, command, tree

RUN = ("--network", "vgg_small", "--seed", "0")

# Root writes anywhere, unless the capability to do so is taken away.
PREFIX = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []

pytestmark = pytest.mark.skipif(bool(PREFIX) and not shutil.which("setpriv"), reason="root may write anywhere")


def called(*arguments: str, folder: Path) -> Outcome:
    done = subprocess.run(
        [*PREFIX, sys.executable, "-m", "trained_binarization", *arguments],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def closed(small: Path) -> Path:
    """A trained and aggregated study whose results folder is read-only."""
    shutil.copyfile(REPOSITORY / "claims.yaml", small / "claims.yaml")
    assert command("aggregate", folder=small).status == 0
    for path in [*(small / "results").rglob("*"), small / "results"]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return small


@pytest.mark.parametrize("arguments", [("finetune", *RUN), ("verify",)], ids=" ".join)
def test_what_is_there_is_taken_as_it_is(arguments: tuple[str, ...], closed: Path) -> None:
    before = tree(closed)
    outcome = called(*arguments, folder=closed)
    assert outcome.status in (0, 3), outcome
    assert "error" not in outcome.err
    assert tree(closed) == before


@pytest.mark.parametrize(
    "arguments",
    [("finetune", *RUN, "--again"), ("aggregate",), ("report",), ("keep", *RUN)],
    ids=" ".join,
)
def test_what_would_be_written_is_told_in_one_line(arguments: tuple[str, ...], closed: Path) -> None:
    before = tree(closed)
    outcome = called(*arguments, folder=closed)
    assert outcome.status == 2, outcome
    assert outcome.err.splitlines()[-1].startswith("error: results/")
    assert "cannot be written: Permission denied; nothing there was changed" in outcome.err
    assert "Traceback" not in outcome.err
    assert tree(closed) == before
