"""The engines that the benchmark compares: each serves a process of its own, and imports only what it needs there."""

import os
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

BATCHES = {1: 40, 32: 4}
"""Images at once, and calls a round."""


def serve(
    pipe: Connection, engine: str, path: Path, make: Callable[[], Any] | None, folder: Path, threads: int
) -> None:
    """One engine in a process of its own: its logits first, then seconds of as many calls as it is asked for."""
    if engine == NO_AMX:
        os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_BF16"
    with np.load(folder / "images.npz") as images:
        inputs = images["bytes"] if engine == OURS else images["float"]
    call = {batch: _caller(engine, path, make, threads, inputs[:batch]) for batch in BATCHES}
    pipe.send(np.asarray(call[len(inputs)]()))
    for batch in BATCHES:  # warm, also where the first calls compile
        for _ in range(3):
            call[batch]()
    while (asked := pipe.recv()) is not None:
        batch, calls = asked
        seconds = []
        for _ in range(calls):
            began = time.perf_counter()
            call[batch]()
            seconds.append(time.perf_counter() - began)
        pipe.send(seconds)
    pipe.send(_peak_memory())


def _peak_memory() -> int:
    """Bytes. Of this program: getrusage's figure would hold that of the process it was started from."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


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
