"""Interruptions: no kill, no signal, no full disk costs more than one interval, and none changes the result."""

import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from trained import CHILD, PARENT, folder_of, record_of, train, trainer

from helpers import Settings, command, merged, run_study, small_settings, small_study, started, write_params
from trained_binarization.binarization.method import Method
from trained_binarization.files import sha256
from trained_binarization.records import WEIGHTS, read_record
from trained_binarization.study import Run, load_study
from trained_binarization.training import checkpoint
from trained_binarization.training.checkpoint import FOLDER
from trained_binarization.training.loop import Interrupted, StopRequests
from trained_binarization.training.runs import train_run


@pytest.mark.parametrize("run", [PARENT, CHILD], ids=str)
def test_stopped_after_every_step_it_ends_with_the_same_weights(run: Run, small: Path) -> None:
    # A deadline in the past stops it after one step; 1297 images in batches of 128 are ten steps.
    expected, history = record_of(small, run), (folder_of(small, run) / "history.csv").read_text(encoding="utf-8")
    shutil.rmtree(folder_of(small, run))
    for step in range(1, 11):
        with pytest.raises(Interrupted) as stop:
            train_run(small_study(), run, small / "results", deadline=time.monotonic() - 1)
        assert stop.value.signal_number is None
        names = sorted(path.name[:13] for path in (folder_of(small, run) / FOLDER).iterdir())
        assert names[-1] == f"step{step:09d}"
        assert len(names) == min(step, 2)
        assert read_record(folder_of(small, run)) is None
    record, trained = train(small, run)
    assert trained
    assert record.weights_sha256 == expected["weights_sha256"]
    assert record.last.model_dump() == expected["last"]
    assert record.interruptions == 10
    assert (folder_of(small, run) / "history.csv").read_text(encoding="utf-8") == history
    assert not (folder_of(small, run) / FOLDER).exists()


def test_a_damaged_newest_checkpoint_costs_its_steps_only(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = record_of(small, CHILD)["weights_sha256"]
    shutil.rmtree(folder_of(small, CHILD))
    for _ in range(6):
        with pytest.raises(Interrupted):
            train_run(small_study(), CHILD, small / "results", deadline=time.monotonic() - 1)
    newest = max((folder_of(small, CHILD) / FOLDER).iterdir())
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 16
    newest.write_bytes(content)
    capsys.readouterr()
    record, _ = train(small, CHILD)
    told = capsys.readouterr().out
    assert f"{newest}: damaged" in told
    assert "goes on after epoch 0, batch 5" in told
    assert record.weights_sha256 == expected


def test_checkpoints_of_other_settings_are_not_gone_on_from(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = record_of(small)["weights_sha256"]
    shutil.rmtree(folder_of(small))
    with pytest.raises(Interrupted):
        train_run(
            small_study(pretrain={"learning_rate": 0.3}), PARENT, small / "results", deadline=time.monotonic() - 1
        )
    capsys.readouterr()
    record, _ = train(small)
    assert "goes on" not in capsys.readouterr().out
    assert record.weights_sha256 == expected
    assert record.interruptions == 0


def test_run_stops_at_its_time_limit_with_status_0_and_goes_on(small_trained: Path, tmp_path: Path) -> None:
    write_params(tmp_path / "params.yaml", small_settings())
    stopped = command("run", "--time-limit", "0", folder=tmp_path)
    assert stopped.status == 0, stopped.err
    assert "4 of 4 runs left, vgg_small/full_precision/seed0 first; call again" in stopped.out
    stops = 1
    while "runs left" in command("run", "--time-limit", "0.3", folder=tmp_path).out:
        stops += 1
        assert stops < 60
    finished = command("run", folder=tmp_path)
    assert finished.status == 0
    assert finished.out.count("already there, nothing trained") == 4
    assert "small: all 4 runs done" in finished.out
    for run in small_study().runs():
        assert record_of(tmp_path, run)["weights_sha256"] == record_of(small_trained, run)["weights_sha256"], run


LONG: Settings = {
    "pretrain": {"epochs": 6, "batch_size": 32},
    "finetune": {"epochs": 6, "batch_size": 32},
    "ablations": [],
    "variants": {},
}


def long_settings(**changes: Any) -> Settings:
    settings = merged(small_settings(**LONG), changes)
    settings["variants"] = {}
    return settings


@pytest.fixture(scope="module")
def long_trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six epochs of forty steps, parent and child, without interruption."""
    return run_study(tmp_path_factory.mktemp("long"), long_settings())


def ready(long_trained: Path, folder: Path, run: Run, **compute: Any) -> Path:
    """A folder where only `run` is left to be trained; its study says how often to save."""
    shutil.copytree(long_trained / "results", folder / "results")
    shutil.rmtree(folder_of(folder, run))
    write_params(folder / "params.yaml", long_settings(compute=compute))
    return folder


def stage(run: Run) -> list[str]:
    return ["pretrain" if run == PARENT else "finetune", "--network", "vgg_small", "--seed", "0"]


def kill_in_the_middle(folder: Path, run: Run, number: signal.Signals) -> tuple[int, str]:
    """Send a signal once two epochs are done; (exit status, output)."""
    process: subprocess.Popen[str] = started(*stage(run), folder=folder)
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if ": epoch " in line and len(lines) >= 2:
            break
    time.sleep(0.05)
    process.send_signal(number)
    rest = process.communicate(timeout=60)[0]
    return process.returncode, "".join(lines) + rest


@pytest.mark.parametrize("run", [PARENT, CHILD], ids=str)
def test_sigterm_saves_and_the_same_command_goes_on_to_the_same_weights(
    run: Run, long_trained: Path, tmp_path: Path
) -> None:
    folder = ready(long_trained, tmp_path, run, checkpoint_seconds=1000.0)
    status, output = kill_in_the_middle(folder, run, signal.SIGTERM)
    assert status == 128 + signal.SIGTERM, output
    assert f"{run}: stopped by a signal, nothing lost; the same command goes on" in output
    step = max(int(saved.name[4:13]) for saved in (folder_of(folder, run) / FOLDER).iterdir())
    assert 40 < step < 240
    assert not (folder_of(folder, run) / "record.json").exists()
    outcome = command(*stage(run), folder=folder)
    assert outcome.status == 0, outcome.err
    assert f"goes on after epoch {(step - 1) // 40}, batch {(step - 1) % 40 + 1}" in outcome.out
    assert record_of(folder, run)["interruptions"] == 1
    assert record_of(folder, run)["weights_sha256"] == record_of(long_trained, run)["weights_sha256"]
    assert sha256(folder_of(folder, run) / WEIGHTS) == record_of(long_trained, run)["weights_sha256"]
    assert (folder_of(folder, run) / "history.csv").read_bytes() == (
        folder_of(long_trained, run) / "history.csv"
    ).read_bytes()


def test_a_checkpoint_at_each_epochs_end(long_trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, steps = ready(long_trained, tmp_path, CHILD, checkpoint_seconds=1000.0), []
    save = checkpoint.save_checkpoint
    monkeypatch.setattr(checkpoint, "save_checkpoint", lambda *those: (steps.append(those[1]), save(*those)))
    train_run(load_study(folder / "params.yaml"), CHILD, folder / "results")
    assert steps[0] == 40
    assert all(step % 40 == 0 for step in steps)
    assert record_of(folder, CHILD)["weights_sha256"] == record_of(long_trained, CHILD)["weights_sha256"]


def test_slow_checkpoints_at_the_epochs_ends_are_few() -> None:
    # Each takes longer than the epochs after it: a tenth of the time is all that they may have.
    one, ends = trainer(Method(), 2 * 32), []
    one.run(lambda: (ends.append(one.state.epoch), time.sleep(1))[0], StopRequests())
    assert (one.state.epoch, ends) == (2, [1])


# ------------------------------------------------------------------------------------------------------- twenty kills


def train_until_killed(folder: Path, run: Run, write: int | None) -> None:
    """In a process of its own: train; with `write`, die in the middle of writing the checkpoint of that number."""
    os.chdir(folder)
    written = 0
    write_bytes = Path.write_bytes

    def write_half(path: Path, content: bytes) -> int:
        nonlocal written
        written += 1
        if written == write:
            write_bytes(path, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write_bytes(path, content)

    with mock.patch.object(Path, "write_bytes", write_half):
        train_run(load_study(folder / "params.yaml"), run, folder / "results")


def test_killed_at_twenty_moments_it_ends_with_the_same_weights(
    long_trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten kills at random times, ten in the middle of writing a checkpoint; each costs one interval at most."""
    folder = ready(long_trained, tmp_path, CHILD, checkpoint_seconds=0.02)
    dice = random.Random(20)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trained_binarization.training.runs"])
    reached = 0
    for kill in range(20):
        write = dice.randint(1, 6) if kill % 2 else None
        process = context.Process(target=train_until_killed, args=(folder, CHILD, write))
        process.start()
        if write is None:
            process.join(dice.uniform(0.3, 1.5))
            process.kill()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, f"kill {kill}: the training had ended: {process.exitcode}"
        saved = sorted(path.name for path in (folder_of(folder, CHILD) / FOLDER).glob("step*"))
        step = int(saved[-1][4:13]) if saved else 0
        assert step >= reached  # what was safe stays safe
        reached = step
    assert reached > 20
    outcome = command("run", folder=folder)
    assert outcome.status == 0, outcome.err
    (place,) = re.findall(r"goes on after epoch (\d+), batch (\d+)", outcome.out)
    assert 40 * int(place[0]) + int(place[1]) == reached
    assert "damaged" not in outcome.out  # a half-written file was never taken for a checkpoint
    assert record_of(folder, CHILD)["weights_sha256"] == record_of(long_trained, CHILD)["weights_sha256"]
    assert {path.name for path in folder_of(folder, CHILD).iterdir()} == {"record.json", "history.csv", WEIGHTS}


# ----------------------------------------------------------------------------------- signals where there are no steps


def interrupted_in(method: Method, training: bool) -> tuple[Any, StopRequests, list[int]]:
    """A trainer that is sent SIGTERM in its network's first forward pass in training, or in evaluation."""
    one = trainer(method, 6 * 32)
    requests, saves = StopRequests(), []

    def send(network: torch.nn.Module, _: Any) -> None:
        if network.training == training:
            handle.remove()
            os.kill(os.getpid(), signal.SIGTERM)

    handle = one.network.register_forward_pre_hook(send)
    with requests.collected(), pytest.raises(Interrupted) as stop:
        one.run(lambda: saves.append(one.state.batch), requests)
    assert stop.value.signal_number == signal.SIGTERM
    return one, requests, saves


def test_a_signal_before_the_first_step_is_obeyed_at_once_and_saves_nothing() -> None:
    # Compiling that step can take a minute, and what is half done is not to be saved.
    one, _, saves = interrupted_in(Method(), training=True)
    assert (one.state.epoch, one.state.batch, saves) == (0, 0, [])


def test_a_signal_during_an_evaluation_saves_and_the_evaluation_is_done_again() -> None:
    # On one core, scoring 10,000 images at full width takes a minute.
    method = Method(activation_scaling="none", weight_scaling="none")
    one, _, saves = interrupted_in(method, training=False)
    assert (one.state.epoch, one.state.batch, saves) == (0, 6, [6])
    assert one.state.history == []
    again, whole = trainer(method, 6 * 32), trainer(method, 6 * 32)
    again.restore(one.tensors(), one.state)
    again.run(lambda: None, StopRequests())
    whole.run(lambda: None, StopRequests())
    assert again.state.history == whole.state.history
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), name


# -------------------------------------------------------------------------------------------------------- a full disk


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Any:
    """A folder on a disk of its own, and a function that gives it another size; skipped where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options: str) -> bool:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)], check=False)
        return done.returncode == 0

    if shutil.which("mount") is None or not mount("size=64m"):
        pytest.skip("no small disk can be mounted here: mount -t tmpfs needs root")
    yield folder, lambda size: mount("remount", f"size={size}")
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # weights may still be mapped


def test_a_full_disk_is_told_and_what_was_saved_stays(tiny_disk: Any, long_trained: Path) -> None:
    folder, resize = tiny_disk
    ready(long_trained, folder, CHILD, checkpoint_seconds=0.02)
    with pytest.raises(Interrupted):
        train_run(load_study(folder / "params.yaml"), CHILD, folder / "results", deadline=time.monotonic())
    (saved,) = (folder_of(folder, CHILD) / FOLDER).iterdir()
    used = shutil.disk_usage(folder).used
    assert resize(used + saved.stat().st_size // 2)  # half of the next one fits
    outcome = command(*stage(CHILD), folder=folder)
    assert outcome.status == 2, outcome.err
    assert "No space left on device; nothing there was changed" in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert list((folder_of(folder, CHILD) / FOLDER).iterdir()) == [saved]
    assert resize("64m")
    outcome = command(*stage(CHILD), folder=folder)
    assert outcome.status == 0, outcome.err
    assert "goes on after epoch 0, batch 1" in outcome.out
    assert record_of(folder, CHILD)["weights_sha256"] == record_of(long_trained, CHILD)["weights_sha256"]
