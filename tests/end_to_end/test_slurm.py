"""The SLURM profile as it is committed, on a cluster of one node: to the report, and on after a time limit."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_project import new_project, tiny_settings
from slurm_cluster import Job, NoSlurm, jobs, running_slurm, wait_for

from helpers import merged, write_params
from trained_binarization.study import FULL_PRECISION, METHOD, load_study

pytestmark = pytest.mark.engine

# This cluster has no accounting that could be asked for a job's state, and its jobs take seconds.
HERE = ("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1")
SNAKEMAKE = (sys.executable, "-m", "snakemake", "--workflow-profile", "slurm", *HERE)


@pytest.fixture(autouse=True)
def _slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    try:
        with running_slurm(tmp_path_factory.mktemp("slurm")):
            yield
    except NoSlurm as reason:
        pytest.skip(f"SLURM cannot be started here: {reason}")


@pytest.mark.parametrize("name", ["tiny", pytest.param("quick", marks=pytest.mark.slow)])
def test_every_stage_is_a_job_and_every_training_gets_a_gpu(name: str, tmp_path: Path) -> None:
    project = new_project(tmp_path / "project")
    if name == "quick":
        shutil.copy(project.folder / "studies" / "quick.yaml", project.folder / "params.yaml")
    study = load_study(project.folder / "params.yaml")
    project.run(*SNAKEMAKE)
    assert (project.folder / "results" / name / "report.html").stat().st_size > 0
    assert (project.folder / "results" / "report.html").stat().st_size > 0
    runs = list(study.runs())
    assert all((project.folder / "results" / name / run.folder / "record.json").exists() for run in runs)
    assert {job.state for job in jobs()} == {"COMPLETED"}
    stages = Counter({FULL_PRECISION: "pretrain", METHOD: "finetune"}.get(run.variant, "ablate") for run in runs)
    trainings = {(stage, "gres:gpu:1"): count for stage, count in stages.items()}
    others = {(stage, "N/A"): 1 for stage in ("prepare", "deploy", "aggregate", "agreement", "report", "replication")}
    assert Counter((job.stage, job.gpus) for job in jobs()) == trainings | others


def test_a_training_that_meets_its_time_limit_goes_on_in_the_next_job(tmp_path: Path) -> None:
    project = new_project(tmp_path / "project")
    write_params(project.folder / "params.yaml", merged(tiny_settings(), {"pretrain": {"epochs": 80}}))
    run = project.results / "runs/vgg_small/full_precision/seed0"

    def trainings() -> list[Job]:
        return [job for job in jobs() if job.stage == "pretrain"]

    process = project.start(*SNAKEMAKE, str((run / "record.json").relative_to(project.folder)))
    try:
        assert wait_for(lambda: any(run.glob("checkpoints/*.safetensors")), 120)
        # The limit is now; SLURM looks for jobs past theirs twice a minute.
        subprocess.run(["scontrol", "update", f"JobId={trainings()[0].number}", "EndTime=now+1"], check=True)
        assert process.wait(300) == 0
    finally:
        process.kill()
    assert [job.state for job in trainings()] == ["TIMEOUT", "COMPLETED"]
    assert "goes on after epoch" in (project.folder / "logs/tiny/pretrain/vgg_small-seed0.log").read_text()
    assert json.loads((run / "record.json").read_text())["interruptions"] == 1
