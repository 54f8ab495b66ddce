"""The benchmark at ImageNet's sizes, on a folder so small that it takes seconds; and the cost that follows from it."""

import json
import re
from pathlib import Path

import pytest

from folders import write_folder
from helpers import REPOSITORY, command, merged, write_params
from trained_binarization.evidence.cost import IMAGES, cost
from trained_binarization.settings import read_yaml
from trained_binarization.study import Study, load_study

COMMITTED = REPOSITORY / "results" / "benchmarks" / "imagenet-cpu.json"


def small_imagenet(tmp_path: Path) -> Path:
    """studies/imagenet.yaml with narrow networks, small images and batches."""
    changes = {
        "dataset": {"image_size": {"alexnet": 67, "resnet18": 32}, "resize": 72},
        "architecture": {"alexnet": {"width": 0.02}, "resnet18": {"width": 0.0625}},
        "pretrain": {"batch_size": 8},
        "finetune": {"batch_size": 8},
        "compute": {"device": "cpu", "compile": False},
    }
    settings = merged(read_yaml(REPOSITORY / "studies" / "imagenet.yaml"), changes)
    return write_params(tmp_path / "params.yaml", settings)


def test_loader_and_steps_are_measured_and_the_cost_follows(tmp_path: Path) -> None:
    write_folder(tmp_path / "images")
    small_imagenet(tmp_path)
    arguments = ("--root", "images", "--params", "params.yaml", "--images", "40", "--rounds", "2")
    for name in ("claims.yaml", "studies", "results/benchmarks/training-cpu.json", "results/cifar10"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (tmp_path / "docs").mkdir()
    document = tmp_path / "docs" / "imagenet.md"
    document.write_text("before\n<!-- cost:begin -->\n<!-- cost:end -->\nafter\n", encoding="utf-8")
    outcome = command("benchmark", "imagenet", *arguments, folder=tmp_path)
    assert outcome.status == 0, outcome.err
    result = json.loads((tmp_path / "results/benchmarks/imagenet-cpu.json").read_text(encoding="utf-8"))
    loading = result["loading"]
    assert (loading["images"], loading["size"], loading["workers"]) == (40, 67, result["threads"])
    check(result)
    text = document.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "GPU-hours" in text
    assert "not run on a GPU" in text


def check(result: dict[str, object]) -> None:
    """What holds between the numbers of one result."""
    loading, training = result["loading"], result["training"]
    assert isinstance(loading, dict)
    assert isinstance(training, list)
    for spread in (*loading["images_per_second"].values(), *loading["times_stock"].values()):
        assert 0 < spread["least"] <= spread["median"] <= spread["most"]
    assert [(row["network"], row["training"]) for row in training] == [
        (network, training) for network in ("alexnet", "resnet18") for training in ("full_precision", "method")
    ]


def test_the_committed_cost_is_what_the_measurements_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    check(json.loads(COMMITTED.read_text(encoding="utf-8")))
    study = load_study(REPOSITORY / "studies" / "imagenet.yaml")
    document = (REPOSITORY / "docs" / "imagenet.md").read_text(encoding="utf-8")
    assert document.split("<!-- cost:begin -->\n")[1].split("<!-- cost:end -->")[0] == cost(study, Path("results"))


def test_the_hours_are_images_by_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    study: Study = load_study(REPOSITORY / "studies" / "imagenet.yaml")
    result = json.loads(COMMITTED.read_text(encoding="utf-8"))
    lines = re.findall(r"^\| (?:AlexNet|ResNet-18) \|.*$", cost(study, Path("results")), flags=re.MULTILINE)
    for row, line in zip(result["training"], lines, strict=True):
        cells = [cell.strip() for cell in line.split("|")][1:-1]
        epochs = {"full precision": study.pretrain.epochs, "method": study.finetune.epochs}[cells[1]]
        assert int(cells[2]) == epochs
        expected = epochs * IMAGES / row["images_per_second"]["median"] / 3600
        assert float(cells[5].replace(",", "")) == pytest.approx(expected, abs=1)
        assert float(cells[8].replace(",", "")) == pytest.approx(float(cells[7].replace(",", "")) / 8, abs=0.1)


def test_a_study_of_other_images_is_told(tmp_path: Path) -> None:
    write_params(tmp_path / "params.yaml", read_yaml(REPOSITORY / "studies" / "quick.yaml"))
    outcome = command("benchmark", "imagenet", "--root", "x", "--params", "params.yaml", folder=tmp_path)
    assert outcome.status == 2
    assert "dataset.name: found 'digits'; allowed: 'imagenet'" in outcome.err
