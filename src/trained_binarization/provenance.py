"""Provenance: which code and which packages run."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from functools import cache
from importlib.machinery import all_suffixes
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trained_binarization.errors import one_line

PACKAGE = Path(__file__).resolve().parent
"""The files that run: those that Python imported, wherever the command was called."""

PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "safetensors", "pydantic", "trained-binarization")
DALI = ("nvidia-dali-cuda120", "nvidia-dali-cuda130")
LOCK = "../../requirements.lock"  # from src/trained_binarization


class _Unknown(Exception):
    """Why no commit can be named."""


def _git(*arguments: str) -> str:
    """What git says in the package's folder; _Unknown where it refuses, or is not there."""
    # Inside a hook of another repository git's variables name that one. Settings, such as safe.directory, may stay.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k.startswith("GIT_CONFIG_")}
    try:
        done = subprocess.run(["git", *arguments], cwd=PACKAGE, env=environment, capture_output=True, check=False)
    except OSError as error:
        raise _Unknown(f"git cannot be run: {error}") from None
    if done.returncode:
        raise _Unknown((os.fsdecode(done.stderr).splitlines() or ["git failed"])[0])
    return os.fsdecode(done.stdout)


def _commit_and_cleanness() -> tuple[str, bool]:
    """(the commit that tracks the package's files, whether they and the lock are as committed there).

    Contents are compared, since the index can be told to overlook changes.
    """
    commit = _git("rev-parse", "HEAD").strip()
    entries = [entry.split("\t") for entry in _git("ls-tree", "-r", "-z", commit, "--", ".", LOCK).split("\0") if entry]
    committed = {name: about.split(" ")[2] for about, name in entries}
    if Path(__file__).name not in committed:
        raise _Unknown(f"the files that run are in {PACKAGE}, which git does not track; install with: pip install -e .")
    importable = [path for path in PACKAGE.rglob("*") if path.suffix in all_suffixes() and path.is_file()]
    there = {path.relative_to(PACKAGE).as_posix() for path in importable if path.parent.name != "__pycache__"}
    there |= {name for name in [*committed, LOCK] if (PACKAGE / name).is_file()}
    if there != committed.keys():
        return commit, False
    names = sorted(there)
    return commit, _git("hash-object", "--", *names).split() == [committed[name] for name in names]


@cache
def _tell(reason: str) -> None:
    """Say once in a process why its records name no commit."""
    line = one_line(f"commit unknown: {reason}; a record made now does not say which code made it")
    print(line, file=sys.stderr, flush=True)


def provenance() -> dict[str, Any]:
    """Commit, cleanness of the package's files and the lock, package versions, Python.

    A commit is named only where git tracks the files that run. Else the environment may hand both in: SOURCE_COMMIT,
    SOURCE_CLEAN (1 or 0). Where it does not, the commit is "unknown" and cleanness None, and a line on stderr says why.
    """
    clean: bool | None
    try:
        commit, clean = _commit_and_cleanness()
    except _Unknown as reason:
        commit = os.environ.get("SOURCE_COMMIT", "")
        clean = {"1": True, "0": False}.get(os.environ.get("SOURCE_CLEAN", ""))
        if not re.fullmatch("[0-9a-f]{7,64}", commit):
            said = f", and SOURCE_COMMIT is no commit: {commit!r}" if commit else ""
            _tell(f"{reason}{said}")
            commit, clean = "unknown", None
    packages = {}
    for name in (*PACKAGES, *DALI):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            if name in PACKAGES:
                packages[name] = "not installed"
    return {"commit": commit, "clean": clean, "packages": packages, "python": platform.python_version()}
