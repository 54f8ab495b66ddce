"""Data-parallel training: two processes mean the same as one, and go on with what the other number left."""

import csv
import json
import os
import socket
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing
from trained import CHILD, PARENT, distilled, folder_of, record_of, trainer

from folders import folder_settings, write_folder
from helpers import command, small_settings, small_study, write_params
from trained_binarization.binarization.method import Method
from trained_binarization.study import Run, load_study
from trained_binarization.training.checkpoint import FOLDER
from trained_binarization.training.distributed import join
from trained_binarization.training.loop import Interrupted, Trainer
from trained_binarization.training.runs import train_run

UNSCALED = Method(activation_scaling="none", weight_scaling="none")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def losses(one: Trainer, steps: int) -> list[float]:
    """The cross-entropy of each step's whole batch."""
    batches = islice(one.epoch(), steps)
    return [one.world.total(one.step(batch, step).clone())[0].item() for step, batch in enumerate(batches)]


def as_one_of_two(rank: int, port: int) -> None:
    """What torchrun tells a process."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)


def of_share(method: Method | None, share: float | None, **how: Any) -> Trainer:
    """A trainer in float64, distilled where there is a share."""
    one = trainer(method, 12 * 32, double=True, **how)
    return distilled(one, share, 3.0) if share else one


def one_of_two(rank: int, port: int, method: Method | None, share: float | None, steps: int, folder: Path) -> None:
    """One of two processes: leaves its losses and its network."""
    as_one_of_two(rank, port)
    with join(small_study()) as world:
        one = of_share(method, share, world=world)
        found = losses(one, steps)
        torch.save((found, one.network.state_dict()), folder / f"{rank}.pt")


@pytest.mark.parametrize(
    ("method", "share", "steps"),
    [(None, None, 12), (UNSCALED, None, 3), (Method(), None, 2), (UNSCALED, 0.7, 2)],
    ids=["full precision", "no scaling", "method", "distilled"],
)
def test_two_processes_take_the_steps_of_one(
    method: Method | None, share: float | None, steps: int, tmp_path: Path
) -> None:
    # In float64 but for the loss itself. A binary network's steps part early: what is rounded otherwise moves a tie to
    # the other side (test_loop.py, above PINNED), and Adam makes a whole step of a gradient that is rounding alone.
    multiprocessing.spawn(one_of_two, (free_port(), method, share, steps, tmp_path), nprocs=2)
    alone = of_share(method, share)
    expected = losses(alone, steps)
    (first, network), (second, other) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first == second == pytest.approx(expected, rel=1e-6)
    for name, tensor in alone.network.state_dict().items():
        assert torch.equal(network[name], other[name]), name
        if method is None:
            torch.testing.assert_close(network[name], tensor, rtol=1e-4, atol=1e-6)


LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
MODULE = ["-m", "trained_binarization"]


def launched(folder: Path) -> dict[str, Any]:
    """How a launcher is started: in a folder, one thread a process, its output caught."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return {"cwd": folder, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}


def torchrun(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """The command line in two processes."""
    launcher = [*LAUNCHER, "--master-port", str(free_port()), *MODULE]
    return subprocess.run([*launcher, *arguments], timeout=300, check=False, **launched(folder))


def history(folder: Path, run: Run) -> list[dict[str, str]]:
    with (folder_of(folder, run) / "history.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def one_step_of_two(rank: int, port: int, folder: Path) -> None:
    """One of two processes that train PARENT for a step and stop."""
    as_one_of_two(rank, port)
    with join(small_study()) as world, pytest.raises(Interrupted):
        train_run(small_study(), PARENT, folder / "results", deadline=time.monotonic(), world=world)


def test_what_two_processes_began_one_goes_on_with_and_two_finish(small_trained: Path, tmp_path: Path) -> None:
    params = write_params(tmp_path / "params.yaml", small_settings())
    assert command("prepare", folder=tmp_path).status == 0
    multiprocessing.spawn(one_step_of_two, (free_port(), tmp_path), nprocs=2)
    with pytest.raises(Interrupted):
        train_run(load_study(params), PARENT, tmp_path / "results", deadline=time.monotonic())
    (_, saved) = sorted((folder_of(tmp_path, PARENT) / FOLDER).iterdir())
    assert saved.name.startswith("step000000002-")
    finished = torchrun("run", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("goes on after epoch 0, batch 2") == 1  # only one process speaks
    assert "small: all 4 runs done" in finished.stdout
    again = torchrun("run", folder=tmp_path)
    assert again.stdout.count("already there, nothing trained") == 4

    record = record_of(tmp_path)
    assert (record["processes"], record["interruptions"]) == (2, 2)
    assert record_of(small_trained)["processes"] == 1
    assert record["fingerprint"] == record_of(small_trained)["fingerprint"]
    for run, tolerance in ((PARENT, 0.02), (CHILD, 0.1)):
        ours, theirs = history(tmp_path, run)[-1], history(small_trained, run)[-1]
        assert float(ours["train_loss"]) == pytest.approx(float(theirs["train_loss"]), rel=tolerance)


def test_two_machines_train_on_a_folder_of_images_as_one_does(tmp_path: Path) -> None:
    # Two agents of torchrun that find each other, as on two machines; each process reads its part of every batch.
    # The rate is small because float32 rounds differently in two processes, and large steps amplify that.
    root = write_folder(tmp_path / "images")
    settings = folder_settings(root, workers=1)
    settings["pretrain"] |= {"epochs": 4, "evaluate_every": 1, "learning_rate": 1e-4}
    for name in ("one", "two"):
        write_params(tmp_path / name / "params.yaml", settings)
    assert command("run", folder=tmp_path / "one").status == 0
    rendezvous = ["--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--rdzv-id=test"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1", *rendezvous, *MODULE, "run"]
    agents = [subprocess.Popen(launcher, **launched(tmp_path / "two")) for _ in range(2)]
    for agent in agents:
        _, errors = agent.communicate(timeout=300)
        assert agent.returncode == 0, errors
    found = {}
    for name in ("one", "two"):
        folder = tmp_path / name / "results" / "photographs" / "runs" / "resnet18" / "full_precision" / "seed0"
        with (folder / "history.csv").open(encoding="utf-8") as file:
            found[name] = [float(row["train_loss"]) for row in csv.DictReader(file)]
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        assert (record["processes"], record["images_scored"]) == ({"one": 1, "two": 2}[name], 24)
    assert found["two"] == pytest.approx(found["one"], rel=1e-3)


def test_sigterm_to_torchrun_saves(small_trained: Path, tmp_path: Path) -> None:
    long = small_settings(pretrain={"epochs": 100})
    write_params(tmp_path / "params.yaml", long)
    process = subprocess.Popen([*LAUNCHER, "--master-port", str(free_port()), *MODULE, "run"], **launched(tmp_path))
    assert process.stdout is not None
    assert any(": epoch 1/" in line for line in process.stdout)
    began = time.monotonic()
    process.terminate()
    process.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert process.returncode != 0
    assert list((folder_of(tmp_path, PARENT) / FOLDER).glob("step*"))


def test_a_batch_that_cannot_be_shared_is_told(tmp_path: Path) -> None:
    write_params(tmp_path / "params.yaml", small_settings(pretrain={"batch_size": 127}))
    outcome = torchrun("run", folder=tmp_path)
    assert outcome.returncode != 0
    told = "study small: pretrain.batch_size: found 127; allowed: a multiple of 2, the number of processes"
    assert told in outcome.stderr
    assert not folder_of(tmp_path, PARENT).exists()
