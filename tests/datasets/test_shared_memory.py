"""Loading processes where the memory that processes share is small, as in a container: a line, and never a hang."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from folders import folder_settings, write_folder
from helpers import write_params
from trained_binarization.datasets.batches import SHARED_MEMORY, check_shared_memory, loaded
from trained_binarization.errors import UserError

TOLD = r"error: /dev/shm: found [^\n]*; start the container with --shm-size=\d+m or more, or set dataset.workers: 0\n"


def command_within(size: str, *lines: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command line `run`, after some lines of Python, with a /dev/shm of a size; skipped where none can be made."""
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    mount = f"mount -t tmpfs -o size={size} tmpfs /dev/shm"
    try:
        subprocess.run([*namespace, "sh", "-c", mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no /dev/shm of a size can be made here: {error}")
    code = "\n".join([*lines, "from trained_binarization.cli import main", "main()"])
    within = [*namespace, "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c", code, "run"]
    return subprocess.run(
        within,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "ignore"},
    )


def study(folder: Path, **changes: Any) -> Path:
    settings = folder_settings(write_folder(folder / "images"), image_size={"resnet18": 96}, resize=112, **changes)
    settings["pretrain"]["batch_size"] = 24
    write_params(folder / "params.yaml", settings)
    return folder


def test_too_little_is_told_before_the_first_batch(tmp_path: Path) -> None:
    done = command_within("1m", folder=study(tmp_path, workers=2))
    assert done.returncode == 2
    assert re.fullmatch(TOLD, done.stderr.splitlines(keepends=True)[-1]), done.stderr
    assert "found 1 MB free; allowed: at least 2 MB, for 72 images of 2 processes at a time" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_others_took_meanwhile_is_told_by_the_process_that_finds_no_room(tmp_path: Path) -> None:
    unchecked = "from trained_binarization.datasets import folder; folder.check_shared_memory = lambda *_: None"
    began = time.monotonic()
    done = command_within("1m", unchecked, folder=study(tmp_path, workers=2))
    assert time.monotonic() - began < 60
    assert done.returncode == 2
    assert re.fullmatch(TOLD, done.stderr.splitlines(keepends=True)[-1]), done.stderr
    assert "found no room for a batch of 1 MB" in done.stderr


def test_without_loading_processes_none_is_needed(tmp_path: Path) -> None:
    done = command_within("64k", folder=study(tmp_path, workers=0))
    assert done.returncode == 0, done.stderr


def test_only_what_lies_there_at_a_time_is_asked_for() -> None:
    if not SHARED_MEMORY.is_dir():
        pytest.skip("no /dev/shm here")
    check_shared_memory(workers=0, images=10**12, batch=10**9, side=224)
    check_shared_memory(workers=2, images=10**12, batch=1, side=32)
    check_shared_memory(workers=10**6, images=2, batch=10**6, side=32)
    with pytest.raises(
        UserError, match=r"^/dev/shm: found \d+ MB free; allowed: at least \d+ MB, for 5000000000 images"
    ):
        check_shared_memory(workers=2, images=10**12, batch=10**9, side=224)


class Killed(Dataset[Any]):
    def __getitem__(self, choices: np.ndarray) -> tuple[torch.Tensor, ...]:
        os.kill(os.getpid(), signal.SIGKILL)
        return (torch.zeros(1),)


def test_a_loading_process_that_the_system_killed_is_told() -> None:
    batches = loaded(Killed(), [np.zeros((2, 3), np.int64)] * 2, 1, torch.device("cpu"))
    with pytest.raises(UserError, match=r"^dataset.workers: found 1, which failed: DataLoader [^\n]*; allowed: fewer"):
        next(batches)
