"""The engines that the benchmark compares: each serves a process of its own, and imports only what it needs there."""

import os
import resource
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

EAGER, COMPILED, ONNX, FLOAT, INT8, NO_AMX, OURS = ENGINES = (
    "PyTorch, eager",
    "PyTorch, compiled",
    "ONNX Runtime",
    "OpenVINO",
    "OpenVINO, int8",
    "OpenVINO, int8 without AMX",
    "OpenVINO, 1 bit (ours)",
)
"""In float32 where nothing else is said. Without AMX is how most processors of today compute int8."""

BATCHES = (1, 32)
"""Images at once."""

WARM_UP, TIMED, LEAST = 0.1, 0.4, 3
"""A turn: seconds that are not counted (others have had the caches), seconds that are, and calls at least."""


def serve(
    pipe: Connection, engine: str, path: Path, make: Callable[[], Any] | None, folder: Path, threads: int
) -> None:
    """One engine in a process of its own: its logits first, then, for each batch it is asked for, a turn's seconds."""
    if engine == NO_AMX:
        os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_BF16"
    with np.load(folder / "images.npz") as images:
        inputs = images["bytes"] if engine == OURS else images["float"]
    call = {batch: _caller(engine, path, make, threads, inputs[:batch]) for batch in BATCHES}
    pipe.send(np.asarray(call[len(inputs)]()))
    for batch in BATCHES:  # also where the first calls compile
        _timed(call[batch], WARM_UP)
    while (batch := pipe.recv()) is not None:
        _timed(call[batch], WARM_UP)
        pipe.send(_timed(call[batch], TIMED))
    pipe.send(_peak_memory())


def _timed(call: Callable[[], Any], seconds: float) -> list[float]:
    """Seconds of each call, of as many as fill the time, but of LEAST at least."""
    found: list[float] = []
    while len(found) < LEAST or sum(found) < seconds:
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return found


def _peak_memory() -> int:
    """Bytes. On Linux, of this program: getrusage's figure would hold that of the process it was started from."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _caller(
    engine: str, path: Path, make: Callable[[], Any] | None, threads: int, inputs: np.ndarray
) -> Callable[[], Any]:
    """A function that runs the engine on these inputs and returns logits; `make`: PyTorch's network without weights."""
    if make is not None:
        import torch

        from trained_binarization.training.weights import load_weights

        torch.set_num_threads(threads)
        network = make().eval()
        load_weights(network, path)
        tensor = torch.from_numpy(inputs)
        run = torch.compile(network, dynamic=False) if engine == COMPILED else network
        return lambda: torch.no_grad()(run)(tensor).numpy()
    if engine == ONNX:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda: session.run(None, {name: inputs})[0]
    import openvino as ov

    from trained_binarization.deploy.model import settings

    model = ov.Core().read_model(path)
    model.reshape(list(inputs.shape))
    request = ov.Core().compile_model(model, "CPU", settings(threads)).create_infer_request()
    request.set_input_tensor(ov.Tensor(np.ascontiguousarray(inputs)))

    def infer() -> Any:
        request.infer()
        return request.get_output_tensor().data

    return infer
