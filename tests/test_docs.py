"""What the prose says in numbers follows from the records."""

import csv
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from trained_binarization.binarization.layers import BinaryConv2d, scaling_penalty
from trained_binarization.deploy.stage import LICENCES
from trained_binarization.evidence.agreement import read_evidence
from trained_binarization.evidence.frames import history_frame
from trained_binarization.evidence.hardware import read_hardware
from trained_binarization.evidence.hardware import table as hardware_table
from trained_binarization.evidence.markdown import escape
from trained_binarization.evidence.verdicts import read_verdicts
from trained_binarization.study import SmallImages, load_study

ROOT = Path(__file__).resolve().parents[1]
REPRODUCTION = ROOT / "docs" / "reproduction.md"
SEARCH = ROOT / "results" / "recipe-search.csv"
OF_IMAGENETTE = ROOT / "results" / "recipe-search-imagenette.csv"
OF_PLUS = ROOT / "results" / "recipe-search-plus.csv"


def words(path: Path) -> str:
    """A document's text on one line."""
    return " ".join(path.read_text(encoding="utf-8").split())


def between(path: Path, marker: str) -> str:
    text = path.read_text(encoding="utf-8")
    return text.split(f"<!-- {marker}:begin -->\n")[1].split(f"<!-- {marker}:end -->")[0].strip()


def markdown_table(rows: list[dict[str, str]]) -> str:
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([row[column] for column in columns] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


@pytest.mark.parametrize(
    ("marker", "path"), [("search", SEARCH), ("search-imagenette", OF_IMAGENETTE), ("search-plus", OF_PLUS)]
)
def test_the_recipe_search_in_the_prose_is_the_recorded_one(marker: str, path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        assert between(REPRODUCTION, marker) == markdown_table(list(csv.DictReader(file)))


@pytest.mark.parametrize("name", ["imagenette", "imagenette-alexnet"])
def test_imagenette_takes_the_better_learning_rates(name: str) -> None:
    search, study = pd.read_csv(OF_IMAGENETTE), load_study(ROOT / f"studies/{name}.yaml")
    best = search.sort_values("validation_accuracy").groupby("stage").last()["learning_rate"]
    assert (study.pretrain.learning_rate, study.finetune.learning_rate) == (best["pretrain"], best["finetune"])


def test_the_studies_take_what_the_search_found() -> None:
    search = pd.read_csv(SEARCH)
    best = search.sort_values("validation_accuracy").groupby(["search", "width", "stage"]).last()
    cpu, full = load_study(ROOT / "studies/cifar10-cpu.yaml"), load_study(ROOT / "studies/cifar10.yaml")
    assert cpu.pretrain.weight_decay == best.loc[(1, 0.25, "pretrain"), "weight_decay"]
    at_default_std = search[(search.width == 0.25) & (search.latent_std == 0.5)]
    assert (
        cpu.finetune.learning_rate == at_default_std.loc[at_default_std.validation_accuracy.idxmax(), "learning_rate"]
    )
    assert full.finetune.learning_rate == best.loc[(2, 1.0, "finetune"), "learning_rate"]
    assert full.finetune.label_smoothing == best.loc[(2, 1.0, "finetune"), "label_smoothing"]


def test_cifar10_plus_takes_what_its_search_found() -> None:
    prose = words(REPRODUCTION)
    assert "gained 1.1 to 1.4 points with every seed, with cutout and without" in prose
    search = pd.read_csv(OF_PLUS).fillna({"cutout": 0, "share": 0})
    binary = search[search.stage == "finetune"].set_index(["cutout", "share", "seed"])
    accuracy, loss = binary.validation_accuracy.unstack("share"), binary.validation_loss.unstack("share")
    gains = (accuracy[0.9] - accuracy[0.0]).round(1)
    assert len(gains) == 4
    assert (gains.min(), gains.max()) == (1.1, 1.4)
    plain = accuracy[0.0]
    assert abs(plain[8].mean() - plain[0].mean()) < plain[8].max() - plain[8].min()
    assert (loss[0.0][8] < loss[0.0][0]).all()
    study = load_study(ROOT / "studies/cifar10-plus.yaml")
    base = load_study(ROOT / "studies/cifar10.yaml")
    assert study.finetune.distillation is not None
    assert (study.finetune.distillation.share, study.finetune.distillation.temperature) == (0.9, 4.0)
    assert isinstance(study.dataset, SmallImages)
    assert study.dataset.cutout == 8
    assert (study.pretrain.epochs, study.finetune.epochs) == (3 * base.pretrain.epochs, 3 * base.finetune.epochs)
    assert study.pretrain.model_copy(update={"epochs": 40, "evaluate_every": 5}) == base.pretrain
    assert "ends above 99 % training accuracy" in prose.replace("\n", " ")


def test_scaling_factors_matter_where_no_batchnorm_follows() -> None:
    assert "end within an eighth of where they stood after the first epoch" in words(REPRODUCTION)
    frame = history_frame(load_study(ROOT / "studies/imagenette.yaml"), ROOT / "results")
    growth: dict[str, list[float]] = {"conv1": [], "conv2": []}
    for _, seed in frame[frame.variant == "method"].groupby("seed"):
        factors = seed.sort_values("epoch").filter(like="alpha_weight.blocks")
        for column, ratio in (factors.iloc[-1] / factors.iloc[0]).items():
            growth[str(column).rpartition(".")[2]].append(ratio)
    assert len(growth["conv1"]) == len(growth["conv2"]) == 3 * 8
    assert all(abs(ratio - 1) < 1 / 8 for ratio in growth["conv1"])
    assert pd.Series(growth["conv2"]).median() > 2
    differences = {}
    for name in ("cifar10-cpu", "imagenette"):
        found = read_verdicts(ROOT / "results" / name / "verdicts.json")
        assert found is not None
        differences[name] = next(row for row in found.comparisons if row.ablation == "no_scaling").difference
    assert max(differences, key=lambda name: differences[name] or 0.0) == "imagenette"


@pytest.fixture(scope="module")
def method_histories() -> pd.DataFrame:
    frame = history_frame(load_study(ROOT / "studies/cifar10.yaml"), ROOT / "results")
    return frame[frame.variant == "method"]


def test_the_jump_of_a_scaling_factor(method_histories: pd.DataFrame) -> None:
    assert "in three of five seeds" in words(REPRODUCTION)
    jumped = []
    for _, seed in method_histories.groupby("seed"):
        seed = seed.sort_values("epoch")
        factor = seed["alpha_weight.conv6"].to_numpy()
        if any(after > 10 > 0.01 > before for before, after in pairwise(factor)):
            jumped.append(seed["evaluation_accuracy"].iloc[-1])
    last = method_histories[method_histories.epoch == method_histories.epoch.max()].evaluation_accuracy
    assert len(jumped) == 3
    assert (max(jumped), min(jumped)) == (last.max(), last.min())


def test_the_share_of_frozen_latent_weights(method_histories: pd.DataFrame) -> None:
    assert "16 to 19 %" in words(REPRODUCTION)
    last = method_histories[method_histories.epoch == method_histories.epoch.max()]
    shares = 100 * last.filter(like="latent_beyond_1.").to_numpy()
    assert round(shares.min()) == 16
    assert round(shares.max()) == 19


def test_the_full_width_learns_its_training_set(method_histories: pd.DataFrame) -> None:
    last = method_histories[method_histories.epoch == method_histories.epoch.max()]
    assert last.train_accuracy.min() > 99


def test_the_readmes_example_runs() -> None:
    example = (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    names: dict[str, object] = {}
    exec(example, names)
    layer = names["layer"]
    assert isinstance(layer, BinaryConv2d)
    assert layer.weight.grad is not None
    assert scaling_penalty(layer) > 0


def test_what_is_said_of_hardware_follows_from_its_comparisons() -> None:
    folder = ROOT / "results" / "benchmarks"
    found = read_hardware(folder)
    made = hardware_table(found)
    assert f"{made.markdown()}\n{escape(made.caption)}\n" in REPRODUCTION.read_text(encoding="utf-8")
    first = next(iter(found.sides.values()))
    assert first.model_dump(exclude={"verdicts"}) == read_evidence(ROOT / "reference", "quick").model_dump(
        exclude={"verdicts"}
    )
    assert "differ in one arm of seven, `signed_activations`" in words(REPRODUCTION)
    for (name, _), one in found.comparisons().items():
        differing = [arm.variant for arm in one.arms if arm.finding == "differs"]
        assert differing == (["signed_activations"] if "AMX" in name else [])
        assert (one.verdict == "agrees") == ("AMX" not in name)
        assert all(arm.equal == 0 for arm in one.arms)


def test_the_data_sets_licences_are_those_of_the_cards() -> None:
    text = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` | {licence} |" in text for name, licence in LICENCES.items())
