"""What is left to run, and its time: from the committed records."""

import shutil
from pathlib import Path
from statistics import median

import pytest

from helpers import REPOSITORY
from trained_binarization.evidence.left import left_to_run
from trained_binarization.files import sha256, write_json, write_text
from trained_binarization.records import fingerprint, read_data, read_record, settings_of
from trained_binarization.settings import read_yaml
from trained_binarization.study import Study, load_study

RESULTS = REPOSITORY / "results"


@pytest.fixture
def some(tmp_path: Path) -> Path:
    """Results with cifar10's parents and method alone."""
    for name in ("cifar10", "cifar10-plus"):
        (tmp_path / name).mkdir()
        shutil.copy(RESULTS / name / "data.json", tmp_path / name)
    for variant in ("full_precision", "method"):
        shutil.copytree(RESULTS / "cifar10/runs/vgg_small" / variant, tmp_path / "cifar10/runs/vgg_small" / variant)
    return tmp_path


def study(name: str) -> Study:
    return load_study(REPOSITORY / "studies" / f"{name}.yaml")


def pace(variant: str, seeds: int = 5) -> float:
    """Seconds an epoch of cifar10, by hand."""
    found = [read_record(RESULTS / f"cifar10/runs/vgg_small/{variant}/seed{seed}") for seed in range(seeds)]
    return median(record.wall_seconds / record.epochs for record in found if record)


def test_the_time_is_runs_times_epochs_times_pace(some: Path) -> None:
    found = left_to_run([study("cifar10"), study("cifar10-plus")], some)
    assert found is not None
    rows = {(row["study"], row["training"]): row for row in found.rows}
    plus = study("cifar10-plus")
    distilled = pace("method") + pace("full_precision") / 3
    expected = {
        ("cifar10", "ablations"): (54, 100, pace("method")),
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


def test_a_distilled_record_tells_of_distilled_trainings_alone(some: Path) -> None:
    plus = study("cifar10-plus")
    checksum = read_data(some, plus).checksum
    run = plus.find("vgg_small", "method", 0)
    record = read_record(some / "cifar10" / run.folder)
    assert record is not None
    changes = {"settings": settings_of(plus, run), "wall_seconds": 3000.0, "epochs": 300}
    changes |= {"fingerprint": fingerprint(plus, run, checksum), "study": plus.study}
    assert record.parent is not None
    changes["parent"] = record.parent.model_copy(
        update={"fingerprint": fingerprint(plus, plus.find("vgg_small", "full_precision", 0), checksum)}
    )
    folder = some / "cifar10-plus" / run.folder
    header, *rows = (some / "cifar10" / run.folder / "history.csv").read_text(encoding="utf-8").splitlines()
    last = rows[-1].split(",", 1)[1]
    write_text(folder / "history.csv", "\n".join([header, *(f"{epoch},{last}" for epoch in range(1, 301))]) + "\n")
    changes["history_sha256"] = sha256(folder / "history.csv")
    changes["last"] = record.last.model_copy(update={"epoch": 300})
    changes["best"] = record.last.model_copy(update={"epoch": 1})
    write_json(folder / "record.json", record.model_copy(update=changes).model_dump())
    found = left_to_run([study("cifar10"), plus], some)
    assert found is not None
    paces = {(row["study"], row["training"]): (row["runs"], row["seconds_an_epoch"]) for row in found.rows}
    assert paces["cifar10-plus", "method"] == (4, 10.0)
    assert paces["cifar10", "ablations"] == (54, pytest.approx(pace("method")))


def test_paces_of_two_devices_are_not_mixed(some: Path) -> None:
    path = some / "cifar10/runs/vgg_small/full_precision/seed0/record.json"
    path.write_text(path.read_text(encoding="utf-8").replace("NVIDIA H100", "Another"), encoding="utf-8")
    found = left_to_run([study("cifar10"), study("cifar10-plus")], some)
    assert found is not None
    minutes = {(row["study"], row["training"]): row["minutes"] for row in found.rows}
    assert minutes["cifar10-plus", "full_precision"] is minutes["cifar10-plus", "method"] is None
    assert minutes["cifar10", "ablations"] > 0


def test_no_record_no_time(some: Path) -> None:
    found = left_to_run([study("imagenet"), study("cifar10")], some)
    assert found is not None
    of_imagenet = [row for row in found.rows if row["study"] == "imagenet"]
    assert len(of_imagenet) == 4
    assert all(row["minutes"] is None for row in of_imagenet)


def test_another_width_tells_nothing(some: Path) -> None:
    settings = read_yaml(REPOSITORY / "studies" / "cifar10-plus.yaml")
    settings["architecture"]["vgg_small"]["width"] = 0.5
    found = left_to_run([Study.model_validate(settings), study("cifar10")], some)
    assert found is not None
    assert all(row["minutes"] is None for row in found.rows if row["study"] == "cifar10-plus")


def test_nothing_is_left_of_what_is_done(tmp_path: Path) -> None:
    assert left_to_run([study("cifar10-cpu")], RESULTS) is None
    assert left_to_run([study("cifar10-cpu")], tmp_path) is not None
