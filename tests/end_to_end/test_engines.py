"""Both engines from a bare project to the report: nothing is trained twice, nothing is lost."""

import csv
import io
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_project import NOTHING, Project, new_project, tiny_settings

from helpers import tree, write_params
from trained_binarization.study import LOCAL

pytestmark = pytest.mark.engine

RUNS = {f"vgg_small/{v}/seed{s}" for v in ("full_precision", "method", "no_l2", "from_scratch") for s in (0, 1)}

ENGINES: dict[str, Callable[[Project], str]] = {
    "snakemake": lambda project: project.snakemake(),
    "dvc": lambda project: project.dvc("repro"),
}


def test_snakemake_to_the_report_and_a_second_call_runs_no_job(by_snakemake: Project) -> None:
    assert (by_snakemake.results / "report.html").stat().st_size > 0
    assert (by_snakemake.folder / "results" / "report.html").stat().st_size > 0
    assert set(by_snakemake.trained()) == RUNS
    assert NOTHING in by_snakemake.snakemake()


def test_dvc_to_the_report_and_a_second_call_runs_no_stage(by_dvc: Project) -> None:
    assert (by_dvc.results / "report.html").stat().st_size > 0
    assert (by_dvc.folder / "results" / "report.html").stat().st_size > 0
    assert set(by_dvc.trained()) == RUNS
    printed = by_dvc.dvc("repro")
    assert "Data and pipelines are up to date." in printed
    assert "Running stage" not in printed


def test_both_engines_give_the_same_numbers(by_snakemake: Project, by_dvc: Project) -> None:
    assert by_snakemake.outcomes() == by_dvc.outcomes()
    for name in ("verdicts.json", "metrics.json"):
        assert (by_snakemake.results / name).read_bytes() == (by_dvc.results / name).read_bytes()
    assert tree(by_snakemake.results / "tables") == tree(by_dvc.results / "tables")


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_after_the_other_trains_nothing(
    engine: str, by_snakemake: Project, by_dvc: Project, tmp_path: Path
) -> None:
    project = (by_dvc if engine == "snakemake" else by_snakemake).copy(tmp_path / "project")
    trained, files = project.trained(), tree(project.results / "runs")
    ENGINES[engine](project)
    assert project.trained() == trained
    assert tree(project.results / "runs") == files


@pytest.mark.parametrize("engine", ENGINES)
def test_a_changed_variant_retrains_its_own_runs_alone(
    engine: str, by_snakemake: Project, by_dvc: Project, tmp_path: Path
) -> None:
    project = (by_snakemake if engine == "snakemake" else by_dvc).copy(tmp_path / "project")
    before, metrics = project.trained(), (project.results / "metrics.json").read_bytes()
    settings = tiny_settings()
    settings["variants"]["no_l2"] = {"latent_std": None}
    write_params(project.folder / "params.yaml", settings)
    printed = ENGINES[engine](project)
    after = project.trained()
    assert {run for run in RUNS if after[run] != before[run]} == {"vgg_small/no_l2/seed0", "vgg_small/no_l2/seed1"}
    assert (project.results / "metrics.json").read_bytes() != metrics
    if engine == "snakemake":
        assert "7 of 7 steps" in printed  # two trainings, aggregate, agreement, report, replication, the target
        assert NOTHING in project.snakemake()
    else:
        assert printed.count("Running stage") == 8  # and prepare, which validates the whole study, and metrics
        assert "weight_scaling_l2" in project.dvc("params", "diff")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_fresh_clone_rebuilds_the_report_without_training(engine: str, by_dvc: Project, tmp_path: Path) -> None:
    """Records and evidence are committed, weights are not; then the evidence is deleted, then DVC's memory too."""
    source = by_dvc.copy(tmp_path / "source")
    source.commit()
    project = source.clone(tmp_path / "clone")
    ENGINES[engine](project)
    assert project.run("git", "status", "--porcelain") == ""
    assert (project.planned() if engine == "snakemake" else project.changed()) == Counter()
    for folder in ("tables", "figures"):
        shutil.rmtree(project.results / folder)
    for path in (*project.results.glob("report.*"), *project.folder.glob("results/report.*")):
        path.unlink()
    (project.folder / "dvc.lock").unlink()
    ENGINES[engine](project)
    assert (project.results / "report.html").exists()
    assert project.trained() == {}
    changed = project.run("git", "status", "--porcelain").splitlines()
    assert [line for line in changed if not line.endswith("dvc.lock")] == []


@pytest.mark.parametrize("engine", ENGINES)
def test_a_changed_variant_is_noticed_in_a_fresh_clone(engine: str, by_dvc: Project, tmp_path: Path) -> None:
    """No engine's memory, no weights: the variant that changed, and needs no parent, is trained, and nothing else."""
    source = by_dvc.copy(tmp_path / "source")
    source.commit()
    project = source.clone(tmp_path / "clone")
    settings = tiny_settings()
    settings["variants"]["from_scratch"]["latent_std"] = None
    write_params(project.folder / "params.yaml", settings)
    ENGINES[engine](project)
    assert set(project.trained()) == {"vgg_small/from_scratch/seed0", "vgg_small/from_scratch/seed1"}


@pytest.mark.parametrize("engine", ENGINES)
def test_in_a_fresh_clone_parents_are_trained_once_more_for_a_variant_that_starts_from_them(
    engine: str, by_dvc: Project, tmp_path: Path
) -> None:
    """Snakemake plans it; under DVC, which sees nothing amiss, the variant's own stage does it."""
    source = by_dvc.copy(tmp_path / "source")
    source.commit()
    project = source.clone(tmp_path / "clone")
    settings = tiny_settings()
    settings["variants"]["no_l2"] = {"latent_std": None}
    write_params(project.folder / "params.yaml", settings)
    ENGINES[engine](project)
    names = ("full_precision", "no_l2")
    trained = project.trained()
    assert set(trained) == {f"vgg_small/{name}/seed{seed}" for name in names for seed in (0, 1)}
    ENGINES[engine](project)
    assert project.trained() == trained


def test_an_experiment_in_a_fresh_clone_and_what_dvc_shows_of_it(by_dvc: Project, tmp_path: Path) -> None:
    """One number an arm, in percent. The study is quick, whose results git ignores."""
    source = by_dvc.copy(tmp_path / "source")
    source.commit()
    project = source.clone(tmp_path / "clone")
    write_params(project.folder / "params.yaml", tiny_settings() | {"study": LOCAL})
    project.run("git", "commit", "--quiet", "--all", "--message", "quick is selected")
    arms = ("full_precision", "method", "no_l2", "from_scratch")
    project.dvc("exp", "run", "--name", "first")
    project.dvc("exp", "run", "--set-param", "finetune.epochs=2", "--name", "longer")
    shown = csv.DictReader(io.StringIO(project.dvc("exp", "show", "--csv")))
    rows = {row["Experiment"] or row["rev"]: row for row in shown}
    assert all(0 < float(rows[name][arm]) <= 100 for name in ("workspace", "first", "longer") for arm in arms)
    assert rows["first"]["method"] != rows["longer"]["method"]
    assert rows["first"]["full_precision"] == rows["longer"]["full_precision"]
    assert max(map(len, project.dvc("metrics", "show").splitlines())) <= 100


@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_engine_finishes_when_called_again(engine: str, by_snakemake: Project, tmp_path: Path) -> None:
    """SIGKILL to the engine and all it started, in the middle: what was trained stays, the rest follows."""
    project = new_project(tmp_path / "project")
    command = {"snakemake": ("snakemake", "--cores", "2"), "dvc": ("dvc", "repro")}[engine]
    process = project.start(sys.executable, "-m", *command)
    try:
        # Whichever three of the eight an engine takes first.
        while len(list(project.results.glob("runs/*/*/*/record.json"))) < 3:
            assert process.poll() is None, "the engine ended before three runs were done"
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    trained = {
        run: when
        for run, when in project.trained().items()
        if (project.results / "runs" / run / "record.json").exists()
    }
    assert 0 < len(trained) < len(RUNS)
    if engine == "snakemake":
        assert "cannot be locked" in project.snakemake(status=1)
        project.snakemake("--unlock")
    ENGINES[engine](project)
    after = project.trained()
    assert {run: after[run] for run in trained} == trained
    assert project.outcomes() == by_snakemake.outcomes()


WRONG = {
    "unknown key": ({"speling": 1}, "params.yaml: speling: unknown key"),
    "wrong type": ({"pretrain": {"epochs": "eight"}}, "params.yaml: pretrain.epochs: found 'eight'"),
    "negative width": ({"architecture": {"vgg_small": {"width": -1.0}}}, "params.yaml: architecture.vgg_small.width"),
    "unknown variant": ({"ablations": ["no_such"]}, "params.yaml: variants: found"),
    "missing key": ({"method": None}, "params.yaml: method: "),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_study_ends_in_one_line_before_any_job(wrong: str, by_snakemake: Project, tmp_path: Path) -> None:
    project = by_snakemake.clone(tmp_path / "project")
    changes, says = WRONG[wrong]
    settings = tiny_settings()
    for key, value in changes.items():
        settings[key] = value if not isinstance(value, dict) else settings[key] | value
    write_params(project.folder / "params.yaml", settings)
    lines = project.snakemake(status=2).splitlines()
    assert lines[-1].startswith(f"error: {says}"), lines
    assert "; allowed: " in lines[-1]
    assert [line for line in lines[:-1] if "profile" not in line] == []  # Snakemake says which profile it loads
    assert not (project.folder / "results").exists()


def test_what_the_engines_show(by_dvc: Project, by_snakemake: Project, tmp_path: Path) -> None:
    """`dvc metrics show`, `dvc plots show`, `snakemake --report`: not empty, of this study."""
    assert "method" in by_dvc.dvc("metrics", "show")
    plot = by_dvc.dvc("plots", "show", "--show-vega", "results/tiny/tables/curves.csv")
    assert "from_scratch" in plot
    assert "evaluation_accuracy" in plot
    page = tmp_path / "page.html"
    by_snakemake.snakemake("--report", str(page))
    assert "figures" in page.read_text()
    for figure in (by_snakemake.results / "figures").glob("*.svg"):
        assert figure.stem in page.read_text()


def test_dvc_in_a_source_archive_once_it_knows_that_there_is_no_git(by_dvc: Project, tmp_path: Path) -> None:
    source = by_dvc.copy(tmp_path / "source")
    source.commit()
    project = source.archive(tmp_path / "archive")
    project.dvc("config", "--local", "core.no_scm", "true")
    assert project.changed() == Counter({"metrics": 1})  # its copy is in no archive
    (project.results / "report.md").unlink()
    project.dvc("repro")
    assert (project.results / "report.md").read_bytes() == (by_dvc.results / "report.md").read_bytes()
    assert project.trained() == {}
