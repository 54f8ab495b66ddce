"""Fixtures that several folders of tests share."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers import REPOSITORY, run_study, small_settings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run what takes many minutes, too")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("slow") and not item.config.getoption("--slow"):
        pytest.skip("takes many minutes: only with --slow")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cifar10_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds cifar-10-batches-py: the real archive, restored if need be; skipped where there is none."""
    root = REPOSITORY / "data" / "raw"
    if len(list(root.glob("cifar-10-batches-py/*batch*"))) >= 7:
        return root
    script = REPOSITORY.parent / "shared" / "data" / "restore_cifar10.py"
    if not script.is_file():
        pytest.skip("CIFAR-10 is not here: no data/raw/cifar-10-batches-py, no ../shared/data/restore_cifar10.py")
    root = tmp_path_factory.mktemp("cifar10")
    subprocess.run([sys.executable, str(script), str(root)], cwd=REPOSITORY, check=True)
    return root


@pytest.fixture(scope="session")
def small_trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with params.yaml (the small study) and results/ with all of its runs. Not to be changed: copy it."""
    return run_study(tmp_path_factory.mktemp("small"), small_settings())


@pytest.fixture
def small(small_trained: Path, tmp_path: Path) -> Path:
    """A copy of `small_trained` that a test may do anything to."""
    folder = tmp_path / "work"
    shutil.copytree(small_trained, folder)
    return folder
