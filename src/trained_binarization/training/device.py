"""The device, its settings and its name."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

from trained_binarization.errors import UserError
from trained_binarization.machine import cache_folder
from trained_binarization.study import Compute


def set_up(compute: Compute) -> torch.device:
    """Choose the device and fix what changes numbers: threads, and float32 that is float32 (no TF32)."""
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise UserError("compute.device: found 'cuda'; allowed: 'auto' or 'cpu', since no CUDA device is there")
    torch.set_num_threads(compute.threads)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    if compute.compile:
        # A cache of its own that outlasts the process: sixteen runs of one network compile once.
        _use_cache(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or str(cache_folder("inductor")))
    if compute.device != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _use_cache(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    except OSError as error:
        raise UserError(
            f"TORCHINDUCTOR_CACHE_DIR: found {folder}, which cannot be written to ({error.strerror}); "
            "allowed: another folder, or compute.compile: false"
        ) from None


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def compiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """torch.compile, every call of the same shapes; UserError at the first call where this machine cannot compile."""
    fast = torch.compile(function, dynamic=False)
    from torch._dynamo.exc import BackendCompilerFailed  # takes seconds to import, and is there by now

    @wraps(function)
    def call(*arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        try:
            return fast(*arguments, **named)
        except BackendCompilerFailed as error:
            raise UserError(
                f"compute.compile: found true, but torch.compile fails here ({str(error).splitlines()[0]}); "
                "allowed: false, or true with a C++ compiler (g++ and Python's headers)"
            ) from None

    return call


def describe(device: torch.device) -> tuple[str, str | None]:
    """(the processor's or GPU's name, the GPU's driver and CUDA version)."""
    if device.type == "cuda":
        driver = "unknown"
        if shutil.which("nvidia-smi"):
            query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", f"--id={device.index or 0}"]
            driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip() or driver
        return torch.cuda.get_device_name(device), f"driver {driver}, CUDA {torch.version.cuda}"
    name = platform.processor() or platform.machine()
    if sys.platform == "linux":
        cpuinfo = Path("/proc/cpuinfo")
        lines = cpuinfo.read_text(encoding="utf-8").splitlines() if os.access(cpuinfo, os.R_OK) else []
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        name = fields.get("model name", name)
        if "cpu family" in fields:  # the name alone can hide the generation: "AMD EPYC" is any of them
            name += f", family {fields['cpu family']}, model {fields.get('model', '?')}"
    return name, None
