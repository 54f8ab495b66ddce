"""What is left to run, and its time: from the committed records."""

from pathlib import Path
from statistics import median

import pytest

from helpers import REPOSITORY
from trained_binarization.evidence.left import left_to_run
from trained_binarization.records import read_record
from trained_binarization.study import Study, load_study, read_yaml

RESULTS = REPOSITORY / "results"


def study(name: str) -> Study:
    return load_study(REPOSITORY / "studies" / f"{name}.yaml")


def pace(variant: str, seeds: int = 5) -> float:
    """Seconds an epoch of cifar10, by hand."""
    found = [read_record(RESULTS / f"cifar10/runs/vgg_small/{variant}/seed{seed}") for seed in range(seeds)]
    return median(record.wall_seconds / record.epochs for record in found if record)


def test_the_time_is_runs_times_epochs_times_pace() -> None:
    found = left_to_run([study("cifar10"), study("cifar10-plus")], RESULTS)
    assert found is not None
    rows = {(row["study"], row["training"]): row for row in found.rows}
    plus = study("cifar10-plus")
    distilled = pace("method") + pace("full_precision") / 3
    expected = {
        ("cifar10", "ablations"): (53, 100, pace("method")),
        ("cifar10-plus", "full_precision"): (5, plus.pretrain.epochs, pace("full_precision")),
        ("cifar10-plus", "method"): (5, plus.finetune.epochs, distilled),
    }
    assert rows.keys() == expected.keys()
    for key, (runs, epochs, seconds) in expected.items():
        row = rows[key]
        assert (row["runs"], row["epochs"]) == (runs, epochs)
        assert row["seconds_an_epoch"] == pytest.approx(seconds)
        assert row["minutes"] == pytest.approx(runs * epochs * seconds / 60)
        assert "H100" in row["device"]


def test_no_record_no_time() -> None:
    found = left_to_run([study("imagenet"), study("cifar10")], RESULTS)
    assert found is not None
    of_imagenet = [row for row in found.rows if row["study"] == "imagenet"]
    assert len(of_imagenet) == 4
    assert all(row["minutes"] is None for row in of_imagenet)


def test_another_width_tells_nothing() -> None:
    settings = read_yaml(REPOSITORY / "studies" / "cifar10-plus.yaml")
    settings["architecture"]["vgg_small"]["width"] = 0.5
    found = left_to_run([Study.model_validate(settings), study("cifar10")], RESULTS)
    assert found is not None
    assert all(row["minutes"] is None for row in found.rows if row["study"] == "cifar10-plus")


def test_nothing_is_left_of_what_is_done(tmp_path: Path) -> None:
    assert left_to_run([study("quick")], RESULTS) is None
    assert left_to_run([study("quick")], tmp_path) is not None
