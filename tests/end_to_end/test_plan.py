"""The two engines mean the same stages, inputs, outputs and commands, for every study."""

import re
import shutil
import sys

import pytest
from dvc.dependency import ParamsDependency
from dvc.repo import Repo
from engine_project import Project, new_project, tiny_settings

from helpers import REPOSITORY, write_params

pytestmark = pytest.mark.engine

STUDIES = [*sorted(path.stem for path in (REPOSITORY / "studies").glob("*.yaml")), "no_ablations"]

Plan = dict[str, tuple[set[str], set[str]]]
"""A stage's command to what it reads and what it writes."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A bare project that plans are made in."""
    made = new_project(tmp_path_factory.mktemp("plan") / "project")
    write_params(made.folder / "studies" / "no_ablations.yaml", tiny_settings() | {"ablations": [], "variants": {}})
    return made


def snakemake_plan(project: Project, study: str) -> Plan:
    """What Snakemake would run, read from a dry run of everything; --params and the log are its own way to say it."""
    printed = project.snakemake("--configfile", f"studies/{study}.yaml", "--dry-run", "--forceall", "--printshellcmds")
    plan: Plan = {}
    for job in re.split(r"^rule \w+:$", printed, flags=re.MULTILINE)[1:]:
        said = dict(re.findall(r"^ *(input|output|Shell command): (.*)$", job, flags=re.MULTILINE))
        if said["Shell command"] == "None":  # the target
            continue
        command = re.sub(r"^logged \S+ | --params \S+", "", said["Shell command"])
        files = [{name.split()[0] for name in said.get(key, "").split(", ") if name} for key in ("input", "output")]
        plan[command] = (files[0], files[1])
    return plan


def dvc_plan(project: Project, study: str) -> Plan:
    """What DVC's index of dvc.yaml holds, folders it depends on resolved to the outputs and files that are in them.

    Without the stage `metrics`, which copies a file for `dvc exp show` and means nothing to Snakemake.
    """
    shutil.copyfile(project.folder / "studies" / f"{study}.yaml", project.folder / "params.yaml")
    with Repo(str(project.folder)) as repo:
        stages = [stage for stage in repo.index.stages if not stage.name.startswith("metrics@")]
        outputs = {out.def_path for stage in stages for out in stage.outs}

        def files(dependency: str) -> set[str]:
            inside = {out for out in outputs if out.startswith(f"{dependency}/")}
            folder = project.folder / dependency
            found = {str(path.relative_to(project.folder)) for path in folder.glob("*.*")} if folder.is_dir() else set()
            return inside or found or {dependency}

        return {
            stage.cmd: (
                {name for dep in stage.deps if not isinstance(dep, ParamsDependency) for name in files(dep.def_path)},
                {out.def_path for out in stage.outs},
            )
            for stage in stages
        }


@pytest.mark.parametrize("study", STUDIES)
def test_both_engines_mean_the_same(project: Project, study: str) -> None:
    ours, theirs = snakemake_plan(project, study), dvc_plan(project, study)
    assert set(ours) == set(theirs)
    declared = set().union(*(outputs for _, outputs in theirs.values()))

    def as_declared(names: set[str]) -> set[str]:
        """Files that DVC declares by their folder, as that folder."""
        return {next((one for one in declared if name.startswith(f"{one}/")), name) for name in names}

    for command, (inputs, outputs) in ours.items():
        assert as_declared(inputs) == theirs[command][0], command
        assert as_declared(outputs) == theirs[command][1], command


def test_dvc_deletes_and_caches_no_output_but_the_copy_of_the_metrics(project: Project) -> None:
    with Repo(str(project.folder)) as repo:
        outputs = [out for stage in repo.index.stages for out in stage.outs]
        cached = {out.def_path for out in outputs if out.use_cache or not out.persist}
    assert len(outputs) > 1
    assert {path.partition("/")[0] for path in cached} == {"metrics"}


def test_the_lint_raises_nothing_but_the_missing_environments(project: Project) -> None:
    printed = project.run(sys.executable, "-m", "snakemake", "--lint", status=None)
    assert set(re.findall(r"^ +\* (.*):$", printed, flags=re.MULTILINE)) == {
        "Specify a conda environment or container for each rule."
    }
