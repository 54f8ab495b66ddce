"""Copies of the project under git, and both engines driven in them as a user drives them."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from helpers import REPOSITORY, Settings, small_settings, write_params

TINY = "tiny"
NOTHING = "Nothing to be done"


def tiny_settings() -> Settings:
    """Seconds of training: eight runs of one epoch, so that every stage, pairing and child of a parent is there."""
    width = {"vgg_small": {"width": 0.25}}  # wide enough to be exported
    return small_settings(
        study=TINY, architecture=width, seeds={"pretrain": [0, 1], "finetune": [0, 1], "ablate": [0, 1]}
    )


@dataclass(frozen=True)
class Project:
    """A folder with the project in it, a git repository of its own."""

    folder: Path

    @property
    def results(self) -> Path:
        """The results of the tiny study."""
        return self.folder / "results" / TINY

    def environment(self) -> dict[str, str]:
        """This Python and this copy's package first; commits that are the same in every copy."""
        return os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder / "src"),
            "DVC_NO_ANALYTICS": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            **{f"GIT_{who}_{what}": "test@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
            **{f"GIT_{who}_DATE": "946684800 +0000" for who in ("AUTHOR", "COMMITTER")},
        }

    def run(self, *arguments: str, status: int | None = 0) -> str:
        """Run a command to its end; what it printed on both channels. `status` None: any."""
        done = subprocess.run(
            arguments,
            cwd=self.folder,
            env=self.environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert status is None or done.returncode == status, f"{arguments}: status {done.returncode}\n{done.stdout}"
        return done.stdout

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start a command as the leader of its own process group, its output thrown away."""
        quiet = subprocess.DEVNULL
        return subprocess.Popen(
            arguments, cwd=self.folder, env=self.environment(), stdout=quiet, stderr=quiet, start_new_session=True
        )

    def snakemake(self, *arguments: str, status: int = 0) -> str:
        """Snakemake on both cores."""
        return self.run(sys.executable, "-m", "snakemake", "--cores", "2", *arguments, status=status)

    def dvc(self, *arguments: str) -> str:
        """DVC."""
        return self.run(sys.executable, "-m", "dvc", *arguments)

    def commit(self) -> None:
        """Put everything that git does not ignore under git."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--allow-empty", "--message", "a commit")

    def copy(self, folder: Path) -> "Project":
        """A copy with everything in it, engines' memories, times and weights too."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)

    def clone(self, folder: Path, *options: str) -> "Project":
        """A fresh clone: what is committed and nothing else."""
        self.run("git", "clone", "--quiet", *options, str(self.folder), str(folder))
        return Project(folder)

    def archive(self, folder: Path) -> "Project":
        """A source archive unpacked: no git, and one modification time for all files."""
        self.run("git", "archive", "--output", f"{folder}.tar", "HEAD")
        with tarfile.open(f"{folder}.tar") as file:
            file.extractall(folder, filter="data")
        return Project(folder)

    def planned(self, *arguments: str) -> Counter[str]:
        """How many jobs of each rule Snakemake would run, but for the target, which does nothing."""
        printed = self.snakemake("--dry-run", *arguments)
        table = printed.partition("Job stats:")[2].partition("total")[0]
        jobs = Counter({name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)})
        assert bool(jobs) != (NOTHING in printed), printed
        del jobs["all"]
        return jobs

    def changed(self) -> Counter[str]:
        """How many stages of each name DVC finds changed; others follow only where a changed one's outputs differ."""
        return Counter(name.partition("@")[0] for name in json.loads(self.dvc("status", "--json")))

    def trained(self) -> dict[str, int]:
        """When each run's weights were written: training alone writes them."""
        paths = self.results.glob("runs/*/*/*/weights.safetensors")
        return {str(path.parent.relative_to(self.results / "runs")): path.stat().st_mtime_ns for path in paths}

    def outcomes(self) -> dict[str, tuple[float, str]]:
        """Each run's last accuracy and the SHA-256 of its weights."""
        records = [json.loads(path.read_text()) for path in sorted(self.results.glob("runs/*/*/*/record.json"))]
        return {f"{r['variant']}/{r['seed']}": (r["last"]["accuracy"], r["weights_sha256"]) for r in records}


def new_project(folder: Path) -> Project:
    """The working tree as it is (what git tracks or could), without results, the tiny study selected."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        source, left_out = REPOSITORY / name, name == "dvc.lock" or Path(name).parts[0] in ("results", "notebooks")
        if source.is_file() and not left_out:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)
    write_params(folder / "params.yaml", tiny_settings())
    project = Project(folder)
    project.run("git", "init", "--quiet")
    project.commit()
    return project
