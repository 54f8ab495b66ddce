"""A training stops at the first value that is not finite, and leaves no record."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from trained import CHILD, PARENT, folder_of, train, trainer

from helpers import command, small_settings, small_study, tree, write_params
from trained_binarization.binarization.method import Method
from trained_binarization.datasets.prepare import prepare
from trained_binarization.errors import Diverged, UserError
from trained_binarization.files import sha256
from trained_binarization.records import DIVERGED, WEIGHTS, Record, read_data, status
from trained_binarization.training.loop import StopRequests
from trained_binarization.training.runs import train_run

FAST = {"learning_rate": 1e20}


def test_the_first_loss_that_is_not_finite_ends_the_training(tmp_path: Path) -> None:
    study = small_study(pretrain=FAST)
    prepare(study, tmp_path)
    with pytest.raises(
        Diverged, match=r"diverged in epoch 1: the loss of batch \d+ of 10 is nan, .* pretrain\.learning_rate"
    ):
        train_run(study, PARENT, tmp_path)
    folder = tmp_path / "small" / PARENT.folder
    assert [path.name for path in folder.iterdir()] == [DIVERGED]
    checksum = read_data(tmp_path, study).checksum
    assert status(tmp_path, study, PARENT, checksum).state == "diverged"
    assert status(tmp_path, small_study(), PARENT, checksum).state == "missing"  # of other settings
    train_run(small_study(), PARENT, tmp_path)
    assert not (folder / DIVERGED).exists()


def test_runs_that_do_not_start_from_it_go_on_and_the_report_says_what_diverged(tmp_path: Path) -> None:
    write_params(tmp_path / "params.yaml", small_settings(pretrain=FAST))
    ended = command("run", folder=tmp_path)
    assert ended.status == 1
    assert "error: vgg_small/full_precision/seed0: diverged in epoch 1" in ended.err
    assert "3 of 4 runs diverged, or start from one" in ended.err
    assert "from_scratch/seed0: " in ended.out
    claims = Path(__file__).resolve().parents[2] / "claims.yaml"
    for stage in ("aggregate", "report"):
        done = command(stage, "--claims", claims, folder=tmp_path)
        assert done.status == 0, done.err
    assert "diverged in epoch 1" in (tmp_path / "results/small/report.md").read_text()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_checkpoint_holds_finite_values_only(value: float) -> None:
    saved: list[int] = []
    one = trainer(Method(), 256)
    batch = next(iter(one.epoch()))
    one.step(batch, 0)
    one.saved = one.saving = 0.0
    one._keep(lambda: saved.append(1), torch.zeros(2, dtype=torch.float64), 0.0)
    with torch.no_grad():
        one.network.bn3.running_var[0] = value  # type: ignore[index, union-attr]
    with pytest.raises(Diverged, match="running_var holds a value that is not finite"):
        one._keep(lambda: saved.append(2), torch.zeros(2, dtype=torch.float64), 0.0)
    assert saved == [1]


def test_without_a_look_at_every_batch_the_epochs_end_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a GPU: no step waits for the host.
    one = trainer(Method(), 256)
    one.each_batch = False
    step = one.step

    def broken(images: tuple[torch.Tensor, ...], batch: int) -> torch.Tensor:
        return step(images, batch) * (float("nan") if batch == 3 else 1.0)

    monkeypatch.setattr(one, "step", broken)
    with pytest.raises(Diverged, match="the loss of batches 1 to 8 of 8 is nan"):
        one.run(lambda: None, StopRequests())


def test_a_factor_that_is_not_finite_ends_the_training() -> None:
    one = trainer(Method(), 256)
    with torch.no_grad():
        one.factors[0].fill_(float("inf"))
    with pytest.raises(Diverged):
        one.run(lambda: None, StopRequests())


def test_a_child_refuses_a_parent_that_is_not_finite(small: Path) -> None:
    path = folder_of(small) / WEIGHTS
    tensors = load_file(path)
    tensors["conv3.weight"][0, 0, 0, 0] = float("nan")
    save_file(tensors, path)
    record = json.loads((folder_of(small) / "record.json").read_text())
    record["weights_sha256"] = sha256(path)
    (folder_of(small) / "record.json").write_text(json.dumps(record))
    before = tree(small)
    (folder_of(small, CHILD) / "record.json").unlink()
    with pytest.raises(UserError, match=r"conv3.weight: found a value that is not finite"):
        train(small, CHILD)
    del before[str((folder_of(small, CHILD) / "record.json").relative_to(small))]
    assert tree(small) == before


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_no_record_holds_a_number_that_is_not_finite(number: str, small_trained: Path) -> None:
    text = (folder_of(small_trained) / "record.json").read_text()
    Record.model_validate_json(text)
    for key in ("loss", "accuracy", "wall_seconds"):
        value = json.loads(text)["last"].get(key, json.loads(text).get(key))
        with pytest.raises(ValueError, match=key):
            Record.model_validate_json(text.replace(f'"{key}": {value}', f'"{key}": {number}'))
