"""The device, its settings and its name."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from trained_binarization.errors import UserError
from trained_binarization.study import Compute


def set_up(compute: Compute) -> torch.device:
    """Choose the device and fix what changes numbers: threads, and float32 that is float32 (no TF32)."""
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise UserError("compute.device: found 'cuda'; allowed: 'auto' or 'cpu', since no CUDA device is there")
    torch.set_num_threads(compute.threads)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    if compute.compile and "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        # A cache of its own that outlasts the process: sixteen runs of one network compile once.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path.home() / ".cache" / "trained-binarization" / "inductor")
    if compute.device != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


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
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        name = fields.get("model name", name)
        if "cpu family" in fields:  # the name alone can hide the generation: "AMD EPYC" is any of them
            name += f", family {fields['cpu family']}, model {fields.get('model', '?')}"
    return name, None
