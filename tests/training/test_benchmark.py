"""The benchmark: what it writes, on real CIFAR-10 and a network so narrow that it takes seconds."""

import json
import re
from pathlib import Path

import pytest

from helpers import REPOSITORY, command, merged, write_params
from trained_binarization.binarization.method import Method
from trained_binarization.networks import build
from trained_binarization.networks.summary import layer_costs
from trained_binarization.settings import read_yaml

COMMITTED = sorted((REPOSITORY / "results" / "benchmarks").glob("training-*.json"))


def test_both_ways_are_measured_and_the_table_says_so(cifar10_root: Path, tmp_path: Path) -> None:
    narrow = {
        "architecture": {"vgg_small": {"width": 0.125}},
        "dataset": {"root": str(cifar10_root)},
        "compute": {"device": "cpu", "compile": False},
    }
    write_params(tmp_path / "params.yaml", merged(read_yaml(REPOSITORY / "studies" / "cifar10-cpu.yaml"), narrow))
    outcome = command(
        "benchmark", "training", "--params", "params.yaml", "--images", "256", "--rounds", "2", folder=tmp_path
    )
    assert outcome.status == 0, outcome.err
    folder = tmp_path / "results" / "benchmarks"
    result = json.loads((folder / "training-cpu.json").read_text(encoding="utf-8"))
    check(result)
    assert (result["images"], result["rounds"], result["width"]) == (256, 2, 0.125)
    table = (folder / "training-cpu.md").read_text(encoding="utf-8")
    assert table in outcome.out
    assert re.search(r"\| method \| 128 \| [\d,]+ \(", table)


def check(result: dict[str, object]) -> None:
    """What holds between the numbers of one result."""
    trainings = result["trainings"]
    assert isinstance(trainings, list)
    assert [row["training"] for row in trainings] == ["full_precision", "method"]
    for row in trainings:
        speeds = row["images_per_second"]
        for spread in (*speeds.values(), row["ratio"]):
            assert 0 < spread["least"] <= spread["median"] <= spread["most"]
        assert row["ratio"]["most"] >= speeds["engine"]["median"] / speeds["stock"]["median"] >= row["ratio"]["least"]
        assert row["flops"] == pytest.approx(row["flops_per_image"] * speeds["engine"]["median"])
        assert row["share_of_ceiling"] == pytest.approx(row["flops"] / result["ceiling"]["flops"])  # type: ignore[index]
        seconds = row["seconds_per_batch"]
        assert all(seconds[stage] > 0 for stage in ("data", "forward", "backward", "step"))
        # Three products a weight: forward, and two backward, but none for the gradient of the images.
        rows = layer_costs(build("vgg_small", Method(), 32, 10, width=result["width"]), 32)
        macs = {layer["layer"]: layer["macs"] for layer in rows}
        assert row["flops_per_image"] == 2 * (3 * macs["total"] - macs["conv1"])


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_committed_results_hold_together(path: Path) -> None:
    from trained_binarization.training.benchmark import table

    result = json.loads(path.read_text(encoding="utf-8"))
    check(result)
    assert path.with_suffix(".md").read_text(encoding="utf-8") == table(result)


@pytest.mark.parametrize("images", ["127", "50001"])
def test_images_that_are_not_there_are_told(images: str, cifar10_root: Path, tmp_path: Path) -> None:
    settings = read_yaml(REPOSITORY / "studies" / "cifar10.yaml") | {}
    settings = merged(settings, {"dataset": {"root": str(cifar10_root)}, "compute": {"device": "cpu"}})
    write_params(tmp_path / "params.yaml", settings)
    outcome = command("benchmark", "training", "--params", "params.yaml", "--images", images, folder=tmp_path)
    assert outcome.status == 2
    assert f"--images: found {images}; allowed: 128 (a batch) to 50000" in outcome.err


def test_a_distilled_study_is_told(tmp_path: Path) -> None:
    write_params(tmp_path / "params.yaml", read_yaml(REPOSITORY / "studies" / "cifar10-plus.yaml"))
    outcome = command("benchmark", "training", "--params", "params.yaml", folder=tmp_path)
    assert outcome.status == 2
    assert "finetune.distillation: found one; allowed: null, to be measured" in outcome.err


def test_another_data_set_is_told(tmp_path: Path) -> None:
    write_params(tmp_path / "params.yaml", read_yaml(REPOSITORY / "studies" / "quick.yaml"))
    outcome = command("benchmark", "training", "--params", "params.yaml", folder=tmp_path)
    assert outcome.status == 2
    assert "dataset.name: found 'digits'; allowed: 'cifar10'" in outcome.err
