"""Both engines plan what is missing and nothing else: in a clone, in a source archive, after any deletion."""

import json
import os
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dvc.repo import Repo
from engine_project import NOTHING, Project, tiny_settings
from ruamel.yaml import YAML

from helpers import write_params

pytestmark = pytest.mark.engine

RUNS = "runs/vgg_small"
JUDGED = {"aggregate": 1, "agreement": 1, "report": 1, "replication": 1}
TRAININGS = {"pretrain": 2, "finetune": 2, "ablate": 4}

MISSING: dict[str, dict[str, int]] = {
    f"{RUNS}/full_precision/seed0/record.json": {"pretrain": 1} | JUDGED,
    f"{RUNS}/method/seed0/record.json": {"finetune": 1, "deploy": 1} | JUDGED,
    f"{RUNS}/no_l2/seed1/history.csv": {"ablate": 1} | JUDGED,
    f"{RUNS}/from_scratch/seed0": {"ablate": 1} | JUDGED,
    "runs": TRAININGS | {"deploy": 1} | JUDGED,
    "tables": JUDGED,
    "tables/claims.md": JUDGED,
    "tables/curves.csv": JUDGED,
    "figures": JUDGED,
    "figures/size.png": JUDGED,
    "verdicts.json": JUDGED,
    "metrics.json": JUDGED,
    "deploy": {"deploy": 1, "replication": 1},
    "deploy/vgg_small/card.md": {"deploy": 1, "replication": 1},
    "deploy/vgg_small/vgg_small.bin": {"deploy_again": 1, "replication": 1},
    "agreement": {"agreement": 1, "report": 1, "replication": 1},
    "agreement/agreement.json": {"agreement": 1, "report": 1, "replication": 1},
    "report.md": {"report": 1, "replication": 1},
    "report.html": {"report": 1, "replication": 1},
    "data.json": {"prepare": 1, "deploy": 1} | JUDGED,
    "": {"prepare": 1, "deploy": 1} | TRAININGS | JUDGED,
    "../report.md": {"replication": 1},
    "../SHA256SUMS": {"replication": 1},
}
"""A path in the study's results to the jobs that Snakemake runs where it is gone, weights being there."""


@pytest.fixture(scope="module")
def made(by_snakemake: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Where Snakemake has made everything: with its own memory, and with weights."""
    return by_snakemake.copy(tmp_path_factory.mktemp("made") / "project")


@pytest.fixture(scope="module")
def committed(by_dvc: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Where DVC has made everything, committed with dvc.lock."""
    project = by_dvc.copy(tmp_path_factory.mktemp("committed") / "project")
    project.commit()
    return project


@pytest.fixture(scope="module")
def archive(committed: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """All files have one time. No git, no weights, no engine's memory."""
    return committed.archive(tmp_path_factory.mktemp("archive") / "project")


@pytest.fixture(scope="module")
def clone(committed: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Files have the times of the checkout. No weights, no engine's memory."""
    return committed.clone(tmp_path_factory.mktemp("clone") / "project")


@contextmanager
def without(path: Path) -> Iterator[None]:
    """Take a file or folder away for a while; it comes back with its times."""
    aside = path.parents[1] / f"{path.name} aside"
    path.rename(aside)
    yield
    if path.is_dir():
        shutil.rmtree(path)
    aside.rename(path)


@contextmanager
def with_changed_record(project: Project, run: str) -> Iterator[None]:
    """A record that is not its settings' own, as old as it was."""
    path = project.results / RUNS / run / "record.json"
    content, times = path.read_text(), path.stat()
    path.write_text(json.dumps(json.loads(content) | {"fingerprint": "0" * 64}))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    yield
    path.write_text(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_where_all_is_there_nothing_is_planned(made: Project, archive: Project, committed: Project) -> None:
    assert made.planned() == archive.planned() == committed.changed() == Counter()


def test_a_clone_trains_nothing_and_its_evidence_is_rebuilt_at_most(clone: Project) -> None:
    assert set(clone.planned()) <= {"deploy", "aggregate", "agreement", "report", "replication"}
    assert clone.changed() == Counter({"metrics": 1})  # its copy is in DVC's cache, not in git


@pytest.mark.parametrize("name", [name for name in MISSING if name.startswith((RUNS, "tables/", "deploy/", "data"))])
def test_snakemake_plans_what_was_deleted(name: str, made: Project) -> None:
    with without(made.results / name):
        assert made.planned() == Counter(MISSING[name])


@pytest.mark.parametrize("name", MISSING)
def test_snakemake_plans_what_was_deleted_from_an_archive(name: str, archive: Project) -> None:
    expected = Counter(MISSING[name])
    if "/method/" in name or "/no_l2/" in name:
        expected["pretrain"] = 1  # the parent's weights are not here, and are needed again
    with without(archive.results / name):
        assert archive.planned() == expected


@pytest.mark.parametrize("name", MISSING)
def test_dvc_sees_what_was_deleted(name: str, committed: Project) -> None:
    made_by = next(iter(MISSING[name])).removesuffix("_again")
    with without(committed.results / name):
        changed = committed.changed()
    assert changed[made_by] == MISSING[name].get(made_by, 1)
    allowed = {one.removesuffix("_again") for one in MISSING[name]} | {"metrics"}
    if name == "data.json" or "full_precision" in name:
        allowed |= TRAININGS.keys()  # they depend on it, and it cannot be compared before it is there
    assert set(changed) <= allowed


def test_a_study_that_never_ran_is_planned_whole_in_an_archive(archive: Project) -> None:
    trainings = {"pretrain": 3, "finetune": 3, "ablate": 15}
    assert archive.planned("--configfile", "studies/quick.yaml") == {"prepare": 1, "deploy": 1} | trainings | JUDGED


@pytest.mark.parametrize("state", ["made", "archive", "clone"])
def test_a_record_that_is_not_sound_is_planned_whatever_its_time(state: str, request: pytest.FixtureRequest) -> None:
    project: Project = request.getfixturevalue(state)
    with with_changed_record(project, "from_scratch/seed1"):
        planned = project.planned()
        assert "vgg_small/from_scratch/seed1 is trained again: " in project.snakemake("--dry-run")
    planned.subtract(Counter(deploy=planned["deploy"]))  # by its time in a clone
    assert +planned == Counter({"ablate": 1} | JUDGED)


def test_dvc_sees_a_record_that_was_changed(committed: Project) -> None:
    with with_changed_record(committed, "from_scratch/seed1"):
        assert committed.changed() == {"ablate": 1, "aggregate": 1, "agreement": 1}


def test_a_named_file_gets_what_it_needs_and_no_more(made: Project) -> None:
    runs = made.results.relative_to(made.folder) / RUNS
    with with_changed_record(made, "no_l2/seed0"), without(made.results / RUNS / "from_scratch/seed0/history.csv"):
        assert made.planned(str(runs / "no_l2/seed0/record.json")) == {"ablate": 1}
        assert made.planned("results/tiny/deploy/vgg_small/card.md") == Counter()
        assert made.planned("results/tiny/report.html") == {"ablate": 2, "aggregate": 1, "agreement": 1, "report": 1}


@pytest.mark.parametrize("engine", ["snakemake", "dvc"])
def test_what_is_missing_or_not_sound_is_made_again_and_then_nothing(
    engine: str, by_dvc: Project, tmp_path: Path
) -> None:
    project = by_dvc.copy(tmp_path / "project")
    before, outcomes = project.trained(), project.outcomes()
    if engine == "snakemake":
        project.snakemake()  # what DVC made is evidence that Snakemake has no memory of
    for name in ("data.json", f"{RUNS}/from_scratch/seed0/record.json", "tables/runs.csv", "deploy/vgg_small/card.md"):
        (project.results / name).unlink()
    record = project.results / RUNS / "no_l2/seed1/record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"fingerprint": "0" * 64}))
    run = project.snakemake if engine == "snakemake" else lambda: project.dvc("repro")
    run()
    after = project.trained()
    assert {one for one in after if after[one] != before[one]} == {
        "vgg_small/from_scratch/seed0",
        "vgg_small/no_l2/seed1",
    }
    assert project.outcomes() == outcomes
    assert all((project.results / name).exists() for name in MISSING)
    assert (NOTHING if engine == "snakemake" else "Data and pipelines are up to date.") in run()


def test_in_an_archive_what_was_deleted_is_made_again_and_then_nothing(committed: Project, tmp_path: Path) -> None:
    """A run, its parent once more since weights are not in git, and what follows from them."""
    project = committed.archive(tmp_path / "project")
    outcomes = project.outcomes()
    (project.results / RUNS / "method/seed1/record.json").unlink()
    (project.results / "figures/size.svg").unlink()
    project.snakemake()
    assert set(project.trained()) == {"vgg_small/full_precision/seed1", "vgg_small/method/seed1"}
    assert project.outcomes() == outcomes
    assert NOTHING in project.snakemake()


def test_a_clone_that_converts_line_ends_has_the_same_bytes(committed: Project, tmp_path: Path) -> None:
    project = committed.clone(tmp_path / "project", "--config", "core.autocrlf=true")
    for name in committed.run("git", "ls-files").splitlines():
        assert (project.folder / name).read_bytes() == (committed.folder / name).read_bytes(), name
    assert project.changed() == Counter({"metrics": 1})  # its copy is in DVC's cache, not in git
    assert project.run("git", "status", "--porcelain") == ""


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file but of Snakemake's own memory."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".snakemake" not in path.parts)
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_a_dry_run_writes_nothing(made: Project) -> None:
    with with_changed_record(made, "method/seed0"), without(made.results / RUNS / "no_l2/seed0/record.json"):
        before = state(made.folder)
        assert made.planned()["finetune"] == 1
        assert state(made.folder) == before


UNPRIVILEGED = "-dac_override,-dac_read_search,-fowner"


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can give files away")
@pytest.mark.parametrize("writable", [True, False])
def test_a_checkout_of_another_owner(writable: bool, committed: Project, tmp_path: Path) -> None:
    """Writable, it is planned like one's own; else Snakemake has no place for its memory, and a line says so."""
    project = committed.clone(tmp_path / "project")
    for path in (project.folder, *project.folder.rglob("*")):
        os.chown(path, 65534, 65534)
        path.chmod(path.stat().st_mode | (0o666 if writable else 0))
    record = project.results / RUNS / "method/seed0/record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"fingerprint": "0" * 64}))
    caps = ("setpriv", "--bounding-set", UNPRIVILEGED, "--inh-caps", UNPRIVILEGED)
    printed = project.run(*caps, sys.executable, "-m", "snakemake", "--dry-run", status=0 if writable else 2)
    if writable:
        assert "rule finetune:" in printed
    else:
        assert printed.splitlines()[-1].startswith(f"error: {project.folder}: cannot be written; ")


@pytest.mark.parametrize("profile", ["default", "gpu"])
def test_a_stage_that_fails_shows_what_it_said(profile: str, made: Project, tmp_path: Path) -> None:
    project = made.copy(tmp_path / "project")
    with (project.folder / "claims.yaml").open("a") as file:
        file.write("no_such_key: 1\n")
    printed = project.snakemake("--workflow-profile", profile, status=1)
    assert "error: claims.yaml: no_such_key: " in printed
    assert "Traceback" not in printed


def test_every_profile_forces_what_is_not_done(made: Project) -> None:
    rules = made.snakemake("--list-rules").split()
    for path in (made.folder / "profiles").glob("*/config.yaml"):
        profile = YAML(typ="safe").load(path)
        assert profile["forcerun"] == ["pretrain", "finetune", "ablate", "deploy_again"]
        assert set(profile["forcerun"]) <= set(rules)


HOSTILE = [
    "0; touch pwned #",
    "$(touch pwned)",
    "`touch pwned`",
    "0 & touch pwned &",
    "0'; touch pwned; '",
    '0"; touch pwned; "',
    "0\\'; touch pwned #",
    "0\ntouch pwned\n",
    "--again",
    "${study}; touch pwned #",
]


def test_no_value_of_a_study_is_run_by_dvcs_shell(committed: Project, tmp_path: Path) -> None:
    """Each stage called by its name: then nothing has validated the study before the shell sees the values."""
    project = committed.clone(tmp_path / "project")
    settings = tiny_settings()
    settings |= {"networks": HOSTILE, "ablations": HOSTILE, "seeds": dict.fromkeys(("pretrain", "ablate"), HOSTILE)}
    settings["seeds"]["finetune"] = [0]
    write_params(project.folder / "params.yaml", settings)
    with Repo(str(project.folder)) as repo:
        stages = {stage.name: stage.cmd for stage in repo.index.stages}
    assert len(stages) > len(HOSTILE) ** 3
    for name in ("pretrain", "ablate"):
        asked = {tuple(shlex.split(cmd)[7::2]) for stage, cmd in stages.items() if stage.startswith(f"{name}@")}
        assert asked == {
            (*words, seed)
            for network in HOSTILE
            for seed in HOSTILE
            for words in ([(network,)] if name == "pretrain" else [(network, variant) for variant in HOSTILE])
        }
    called = [f"pretrain@tiny-{one}-{one}" for one in HOSTILE] + [f"deploy@tiny-{one}" for one in HOSTILE]
    printed = project.run(
        *(sys.executable, "-m", "dvc", "repro", "--force", "--keep-going", "--single-item", *called), status=255
    )
    assert printed.count("Running stage") == len(called)
    assert list(project.folder.rglob("pwned*")) == []
