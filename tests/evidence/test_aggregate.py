"""Tables and figures: deterministic, complete, free of stale files, and there with any number of records."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import CLAIMS, ROOT, write_results

from helpers import run_study, small_settings
from trained_binarization.evidence import FIGURES, TABLES, figures_of
from trained_binarization.evidence.aggregate import aggregate
from trained_binarization.evidence.frames import RUN_COLUMNS, runs_frame
from trained_binarization.study import FULL_PRECISION, Study, load_study


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_twice_the_same_bytes(quick: Study, tmp_path: Path) -> None:
    """Once here, once in a process of its own with another hash seed."""
    one, two = tmp_path / "one", tmp_path / "two"
    write_results(quick, one)
    shutil.copytree(one, two)
    aggregate(quick, one, CLAIMS)
    code = (
        "import sys; from pathlib import Path; from trained_binarization.study import load_study; "
        "from trained_binarization.evidence.aggregate import aggregate; "
        "aggregate(load_study(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]))"
    )
    command = [sys.executable, "-c", code, str(ROOT / "studies" / "quick.yaml"), str(two), str(CLAIMS)]
    subprocess.run(command, check=True, env={"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "PATH": "/usr/bin"})
    assert contents(one) == contents(two)


def test_what_two_engines_differ_in_does_not_enter(quick: Study, tmp_path: Path) -> None:
    """Wall time, speed, commit and machine of a record leave everything that aggregate writes as it is."""
    write_results(quick, tmp_path)
    aggregate(quick, tmp_path, CLAIMS)
    before = contents(tmp_path)
    for path in tmp_path.rglob("record.json"):
        record = json.loads(path.read_text("utf-8"))
        record |= {"wall_seconds": 1.0, "images_per_second": 9.0, "commit": "f" * 40, "device": "another", "threads": 8}
        path.write_text(json.dumps(record), "utf-8")
    aggregate(quick, tmp_path, CLAIMS)
    after = contents(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {n for n in before if n.endswith("record.json")}


def test_everything_is_there_and_nothing_stale(quick: Study, tmp_path: Path) -> None:
    write_results(quick, tmp_path)
    for name in ("tables/old.csv", "figures/old.svg"):
        (tmp_path / "quick" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "quick" / name).write_text("old", "utf-8")
    told = aggregate(quick, tmp_path, CLAIMS)
    assert told == "quick: tables, figures and verdicts from 21 of 21 runs"
    tables = {path.name for path in (tmp_path / "quick" / "tables").iterdir()}
    assert tables == {f"{name}.{kind}" for name in TABLES for kind in ("csv", "md")} - {"curves.md"}
    figures = {path.name for path in (tmp_path / "quick" / "figures").iterdir()}
    assert figures == {f"{name}.{kind}" for name in FIGURES for kind in ("svg", "png")}
    metrics = json.loads((tmp_path / "quick" / "metrics.json").read_text("utf-8"))
    assert set(metrics) == {"full_precision", "method", *quick.ablations}
    assert 90 < metrics["method"] < 100
    for path in (tmp_path / "quick" / "figures").glob("*.svg"):
        assert "<dc:date>" not in path.read_text("utf-8")
        assert "Matplotlib v" not in path.read_text("utf-8")


def test_the_engines_expect_the_figures_that_are_drawn(tmp_path: Path) -> None:
    """Without ablations, and without scaling factors, there is less to draw."""
    without = {"method": {"activation_scaling": "none", "weight_scaling": "analytic"}}
    folder = run_study(tmp_path, small_settings(**without) | {"ablations": [], "variants": {}})
    study = load_study(folder / "params.yaml")
    aggregate(study, folder / "results", CLAIMS)
    drawn = {path.stem for path in (folder / "results" / "small" / "figures").iterdir()}
    assert drawn == set(figures_of(study)) == FIGURES.keys() - {"ablation", "alphas"}


def test_no_records(quick: Study, tmp_path: Path) -> None:
    told = aggregate(quick, tmp_path, CLAIMS)
    assert told.endswith(f"0 of 21 runs; not run: 21, first: {quick.command(next(quick.runs()))}")
    assert {path.stem for path in (tmp_path / "quick" / "figures").iterdir()} == {"method"}
    assert json.loads((tmp_path / "quick" / "metrics.json").read_text("utf-8")) == {}


def test_runs_table_is_the_frame(quick: Study, tmp_path: Path) -> None:
    write_results(quick, tmp_path)
    aggregate(quick, tmp_path, CLAIMS)
    frame = runs_frame(quick, tmp_path)
    assert tuple(frame.columns) == RUN_COLUMNS
    with (tmp_path / "quick" / "tables" / "runs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(frame)
    accuracy = {(row["variant"], row["seed"]): float(row["accuracy"]) for row in rows}
    for row in frame.to_dict("records"):
        assert accuracy[row["variant"], str(row["seed"])] == pytest.approx(row["accuracy"], abs=1e-4)


def test_curves_hold_every_epoch(quick: Study, tmp_path: Path) -> None:
    write_results(quick, tmp_path)
    aggregate(quick, tmp_path, CLAIMS)
    lines = (tmp_path / "quick" / "tables" / "curves.csv").read_text("utf-8").splitlines()
    assert lines[0] == "network,variant,seed,epoch,train_loss,train_accuracy,evaluation_accuracy"
    epochs = sum(quick.training(run).epochs for run in quick.runs())
    assert len(lines) == 1 + epochs
    assert lines[1].startswith(f"vgg_small,{FULL_PRECISION},0,1,")


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in (ROOT / "results").glob("*/verdicts.json")))
def test_committed_tables_follow_from_the_records(folder: str, tmp_path: Path) -> None:
    """Tables, verdicts and metrics that lie in results/ are what the records beside them give."""
    study = load_study(ROOT / "studies" / f"{folder}.yaml")
    shutil.copytree(ROOT / "results" / folder, tmp_path / folder)
    shutil.rmtree(tmp_path / folder / "tables")
    aggregate(study, tmp_path, CLAIMS)
    for path in [
        "verdicts.json",
        "metrics.json",
        *(f"tables/{p.name}" for p in (tmp_path / folder / "tables").iterdir()),
    ]:
        assert (tmp_path / folder / path).read_bytes() == (ROOT / "results" / folder / path).read_bytes(), path
