"""Provenance: which code and which packages run."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "safetensors", "pydantic", "trained-binarization")
DALI = ("nvidia-dali-cuda120", "nvidia-dali-cuda130")
LOCK = "requirements.lock"


def _git(*arguments: str) -> str | None:
    here = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def provenance() -> dict[str, Any]:
    """Commit and cleanness of src/ and the lock, package versions, Python.

    Where no .git travels along, the environment hands the first two in: SOURCE_COMMIT, SOURCE_CLEAN (1 or 0).
    """
    commit = _git("rev-parse", "HEAD")
    clean: bool | None
    if commit:
        clean = _git("status", "--porcelain", "--", "src", LOCK) == ""
    else:
        commit = os.environ.get("SOURCE_COMMIT", "unknown")
        clean = {"1": True, "0": False}.get(os.environ.get("SOURCE_CLEAN", ""))
    packages = {}
    for name in (*PACKAGES, *DALI):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            if name in PACKAGES:
                packages[name] = "not installed"
    return {"commit": commit, "clean": clean, "packages": packages, "python": platform.python_version()}
