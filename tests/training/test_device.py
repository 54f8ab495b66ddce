"""The device and its settings."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers import small_settings
from trained_binarization.errors import UserError
from trained_binarization.study import Compute
from trained_binarization.training.device import describe, set_up


def compute(**changes: object) -> Compute:
    return Compute.model_validate(small_settings()["compute"] | changes)


def test_threads_are_what_the_study_says() -> None:
    for threads in (2, 1):
        set_up(compute(threads=threads))
        assert torch.get_num_threads() == threads


def test_float32_is_float32() -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    set_up(compute())
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_the_device_is_what_the_study_says() -> None:
    assert set_up(compute(device="cpu")).type == "cpu"
    assert set_up(compute(device="auto")).type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_that_is_not_there_is_told() -> None:
    with pytest.raises(UserError, match=r"compute\.device: found 'cuda'; allowed: 'auto' or 'cpu'"):
        set_up(compute(device="cuda"))


def test_the_processor_has_a_name() -> None:
    name, driver = describe(torch.device("cpu"))
    assert name
    assert "\n" not in name
    assert driver is None


COMPILE = """
import torch
from trained_binarization.study import Compute
from trained_binarization.training.device import compiled, set_up
from trained_binarization.errors import UserError
set_up(Compute.model_validate({compute}))
try:
    print(compiled(lambda x: x.sin() + 1)(torch.zeros(64)).sum().item())
except UserError as error:
    print(error)
"""


def compiling(**environment: str) -> str:
    """What a function that is compiled gives in a process of its own, or the error's line."""
    program = COMPILE.format(compute=compute(compile=True).model_dump())
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "TORCHINDUCTOR_CACHE_DIR"} | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_a_compiler_one_line_names_the_setting(tmp_path: Path) -> None:
    line = compiling(PATH="/nowhere", CXX="no-such-compiler", HOME=str(tmp_path))
    assert line.startswith("compute.compile: found true, but torch.compile fails here (")
    assert "allowed: false, or true with a C++ compiler" in line
    assert line.count("\n") == 1


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler: g++ is not here")
def test_without_a_home_folder_it_compiles(tmp_path: Path) -> None:
    assert compiling(HOME="/", TMPDIR=str(tmp_path)) == "64.0\n"
    assert any(tmp_path.glob("trained-binarization-*/inductor/*"))


def test_a_cache_that_cannot_be_written_to_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"^TORCHINDUCTOR_CACHE_DIR: found .*/file, which cannot be written to"):
        set_up(compute(compile=True))
