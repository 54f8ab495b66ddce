"""Fixtures that several folders of tests share."""

import shutil
from pathlib import Path

import pytest
import torch

from helpers import DATA, run_study, small_settings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run what takes many minutes, too")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("slow") and not item.config.getoption("--slow"):
        pytest.skip("takes many minutes: only with --slow")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cifar10_root() -> Path:
    """The folder that holds cifar-10-batches-py, the real archive; skipped where there is none."""
    if len(list(DATA.glob("cifar-10-batches-py/*batch*"))) < 7:
        pytest.skip(f"CIFAR-10 is not here: no {DATA}/cifar-10-batches-py (TRAINED_BINARIZATION_DATA names the folder)")
    return DATA


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
