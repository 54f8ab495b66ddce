"""Fixtures of the evidence tests; what they are made of stands in synthetic.py."""

import shutil
from pathlib import Path

import pytest
from synthetic import CLAIMS, ROOT, cifar10_study, quick_study

from trained_binarization.study import Study


@pytest.fixture
def quick() -> Study:
    return quick_study()


@pytest.fixture
def cifar10() -> Study:
    return cifar10_study()


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory like the repository's: studies/quick.yaml, params.yaml, claims.yaml."""
    (tmp_path / "studies").mkdir()
    shutil.copyfile(ROOT / "studies" / "quick.yaml", tmp_path / "studies" / "quick.yaml")
    shutil.copyfile(ROOT / "studies" / "quick.yaml", tmp_path / "params.yaml")
    shutil.copyfile(CLAIMS, tmp_path / "claims.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path
