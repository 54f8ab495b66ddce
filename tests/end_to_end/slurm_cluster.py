"""A SLURM cluster of one node, for as long as a test needs it."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

DAEMONS = ("slurmctld", "slurmd")

# The node claims to have more than the machine (config_overrides), among it two GPUs that are none: so jobs ask for
# what they ask a real cluster for. No authentication, no accounts; no cgroups, but an empty folder, which slurmd needs.
FILES = {
    "slurm.conf": """
ClusterName=test
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MinJobAge=3600
GresTypes=gpu
NodeName=localhost CPUs=64 RealMemory=1000000 Gres=gpu:2
PartitionName=test Nodes=ALL Default=YES
""",
    "gres.conf": "Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n",
    "cgroup.conf": "CgroupPlugin=cgroup/v1\nCgroupMountpoint={folder}/cgroup\n",
    # Snakemake's plugin hides SLURM_CONF from srun, which finds a real cluster's configuration by itself.
    "bin/srun": '#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {srun} "$@"\n',
}


class NoSlurm(Exception):
    """SLURM cannot be started here; says why."""


@dataclass(frozen=True)
class Job:
    """What SLURM says of a job: its number, the stage that it was for, its state, the GPUs that it asked for."""

    number: int
    stage: str
    state: str
    gpus: str


def jobs() -> list[Job]:
    """All jobs so far, ended ones too, in the order of their numbers."""
    columns = "--Format=JobID:|,Comment:|,State:|,tres-per-job:|"
    rows = [line.split("|") for line in _told("squeue", "--states=all", "--sort=i", columns)]
    # The plugin's comment is rule_STAGE, and the wildcards.
    return [Job(int(number), comment.split("_")[1], state, gpus) for number, comment, state, gpus, _ in rows]


def wait_for(what: Callable[[], bool], seconds: float) -> bool:
    """Whether it came true within so many seconds."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


@contextmanager
def running_slurm(folder: Path) -> Iterator[None]:
    """SLURM on this machine, all of its files in `folder`, found by this process's commands; else NoSlurm."""
    if missing := [name for name in (*DAEMONS, "sbatch", "srun", "squeue") if not shutil.which(name)]:
        raise NoSlurm(f"not installed: {', '.join(missing)}")
    if os.geteuid() != 0:
        raise NoSlurm("not root")
    with socket.create_server(("", 0)) as one, socket.create_server(("", 0)) as other:
        ports = one.getsockname()[1], other.getsockname()[1]
    for name in ("state", "spool", "cgroup", "bin"):
        (folder / name).mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text.format(folder=folder, ports=ports, srun=shutil.which("srun")), encoding="utf-8")
    (folder / "bin/srun").chmod(0o755)
    found = {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": f"{folder}/bin{os.pathsep}{os.environ['PATH']}"}
    with mock.patch.dict(os.environ, found):
        daemons = [_started(name, folder / f"{name}.log") for name in DAEMONS]
        try:
            if not wait_for(lambda: _told("sinfo", "--format=%T") == ["idle"], 30):
                last = [(folder / f"{name}.log").read_text().strip().rpartition("\n")[2] for name in DAEMONS]
                raise NoSlurm(f"its node was not idle within 30 seconds; the logs end with: {last}")
            yield
            subprocess.run(["scancel", "--user=root"], check=True)
            wait_for(lambda: not _told("squeue"), 60)
        finally:
            for daemon in reversed(daemons):
                daemon.terminate()
                daemon.wait(30)


def _started(name: str, log: Path) -> "subprocess.Popen[bytes]":
    """A daemon that ends when this process does, however that ends."""
    with log.open("wb") as file:
        return subprocess.Popen(["setpriv", "--pdeathsig", "TERM", name, "-D"], stdout=file, stderr=subprocess.STDOUT)


def _told(*command: str) -> list[str]:
    """The lines that a command of SLURM's answers with; none where there is no answer."""
    return subprocess.run([*command, "--noheader"], capture_output=True, text=True).stdout.splitlines()
