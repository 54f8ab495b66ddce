"""A trained study whose networks can be exported."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers import run_study, small_settings

WIDE: dict[str, Any] = {
    "architecture": {"vgg_small": {"width": 0.25}},
    "seeds": {"ablate": [0]},
    "ablations": ["signed_activations"],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Full precision, the method and {-1, +1} activations on digits, at a width that can be exported."""
    settings = small_settings(**WIDE)
    settings["variants"] = {"signed_activations": {"activation_values": "plus_minus_one"}}
    return run_study(tmp_path_factory.mktemp("wide"), settings)


@pytest.fixture
def work(trained: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    shutil.copytree(trained, folder)
    return folder
