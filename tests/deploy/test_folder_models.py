"""ResNet-18 on image files, exported: proven on every scored image, and files classified as evaluation sees them."""

import json
import shutil
from pathlib import Path

import pytest

from folders import folder_settings, write_folder
from helpers import command, run_study, write_params

pytest.importorskip("openvino", reason="openvino is not installed")

MODEL = Path("results", "photographs", "deploy", "resnet18", "resnet18.xml")


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ResNet-18 at half its width on photographs of digits, exported."""
    folder = tmp_path_factory.mktemp("deployed")
    settings = folder_settings(write_folder(folder / "images"))
    settings["architecture"]["resnet18"]["width"] = 0.5
    run_study(folder, settings)
    outcome = command("deploy", "--network", "resnet18", folder=folder)
    assert outcome.status == 0, outcome.err
    return folder


def test_every_sum_and_every_prediction_was_compared(deployed: Path) -> None:
    found = json.loads((deployed / MODEL).with_name("deploy.json").read_text(encoding="utf-8"))
    assert found["status"] == "exported"
    assert len(found["proof"]["layers"]) == 16
    assert all(layer["sums"] > 0 and layer["differing"] == 0 for layer in found["proof"]["layers"])
    assert found["proof"]["images"] == 24
    card = (deployed / MODEL).with_name("card.md").read_text(encoding="utf-8")
    assert "Imagenette" in card
    outcome = command("evaluate", MODEL, folder=deployed)
    assert outcome.status == 0, outcome.err
    assert "on the 24 test images" in outcome.out


def test_files_are_classified_as_they_are_scored(deployed: Path) -> None:
    about = json.loads((deployed / MODEL).with_name("deploy.json").read_text(encoding="utf-8"))
    files = sorted((deployed / "images" / "val").rglob("*.JPEG"))
    outcome = command("predict", MODEL, *files, folder=deployed)
    assert outcome.status == 0, outcome.err
    labels = [line.split(": ")[1].split(",")[0] for line in outcome.out.splitlines()]
    right = sum(label == path.parent.name for label, path in zip(labels, files, strict=True))
    assert 100 * right / len(files) == pytest.approx(about["proof"]["accuracy_exported"])


def test_the_weights_of_another_folder_are_not_scored_here(deployed: Path, tmp_path: Path) -> None:
    shutil.copytree(deployed, tmp_path / "work")
    extra = tmp_path / "work" / "images" / "val" / "n00" / "extra.JPEG"
    shutil.copy(tmp_path / "work" / "images" / "val" / "n01" / "0.JPEG", extra)
    settings = folder_settings(tmp_path / "work" / "images", cache="cache2")
    settings["architecture"]["resnet18"]["width"] = 0.5
    write_params(tmp_path / "work" / "params.yaml", settings)
    outcome = command("evaluate", MODEL, folder=tmp_path / "work")
    assert outcome.status == 2
    assert "data: found" in outcome.err
