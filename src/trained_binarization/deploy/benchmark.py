"""How fast, small and lean the 1-bit network is, beside what users would run otherwise; each engine in its own process.

The engines take turns, so that a machine that slows down slows all of them; before one is timed, what it computes is
compared. The float networks have random weights: speed does not depend on them.
"""

import multiprocessing
import statistics
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trained_binarization.datasets import open_dataset
from trained_binarization.datasets.augment import normalise
from trained_binarization.deploy.engines import BATCHES, COMPILED, EAGER, FLOAT, INT8, NO_AMX, ONNX, OURS, serve
from trained_binarization.deploy.model import read_model
from trained_binarization.deploy.proof import compare_layers
from trained_binarization.errors import UserError
from trained_binarization.files import sha256
from trained_binarization.provenance import provenance
from trained_binarization.records import METHOD_VERSION
from trained_binarization.study import METHOD, Study
from trained_binarization.training.device import describe
from trained_binarization.training.runs import built, kept_network
from trained_binarization.training.weights import save_weights

INSTRUCTIONS = ["avx2", "avx512f", "avx512_vnni", "avx512_vpopcntdq", "avx512_bf16", "amx_bf16", "amx_int8", "asimd"]
"""What of a processor's instruction set matters here."""


def benchmark_inference(
    study: Study, network: str, results: Path, threads: list[int], rounds: int, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Latency, throughput, file size and peak memory of every engine, one thread and more, batch 1 and 32."""
    started = provenance()
    run = study.find(network, METHOD, study.seeds.finetune[0])
    path = results / study.study / "deploy" / network / f"{network}.xml"
    read_model(path)  # ours, and whole
    data = open_dataset(study.dataset, run.network)
    mean, std = data.statistics(study.dataset.validation)
    images, _ = next(data.scored(0, torch.device("cpu")).batches(max(BATCHES)))
    binary = kept_network(study, run, results, data).eval()
    differing = sum(layer.differing for layer in compare_layers(binary, images, mean, std))
    if differing:
        raise UserError(f"{path}: found {differing} sums that differ from the framework's; allowed: none")
    with TemporaryDirectory() as folder:
        say("exporting the float network, quantizing it to int8")
        inputs = normalise(images, mean, std).contiguous()
        training = data.trained_on(study.dataset, torch.device("cpu"))
        calibration, _ = training.load(*next(training.batches(0, 0, min(256, len(training)), 0, slice(None))))
        calibration = calibration.contiguous()
        make = partial(built, study, run.network, None, data.size, len(data.classes))
        torch.manual_seed(0)
        twin = _with_statistics(make(), calibration)
        files = _write(twin, inputs, calibration, Path(folder)) | {OURS: path}
        np.savez(Path(folder, "images.npz"), float=inputs.numpy(), bytes=images.numpy())
        with torch.no_grad():
            expected = {"float": twin(inputs).numpy(), "ours": binary(inputs).argmax(1).numpy()}
        measured = [
            row for count in threads for row in _in_turn(files, make, Path(folder), count, rounds, expected, say)
        ]
    name, _ = describe(torch.device("cpu"))
    flags = _flags()
    return {
        "study": study.study,
        "network": network,
        "model_sha256": sha256(path.with_suffix(".bin")),
        "method_version": METHOD_VERSION,
        "device": name,
        "instructions": [one for one in INSTRUCTIONS if one in flags],
        "rounds": rounds,
        "measured": measured,
        **started,
        "packages": started["packages"] | {name: version(name) for name in ("openvino", "onnxruntime", "nncf")},
    }


def _flags() -> set[str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split(":")[1].split()}


def _with_statistics(twin: nn.Module, images: Tensor) -> nn.Module:
    """BatchNorm's statistics taken from real images, so that a random network keeps its values in range."""
    with torch.no_grad():
        for _ in range(20):
            twin(images)
    return twin.eval()


def _write(twin: nn.Module, inputs: Tensor, calibration: Tensor, folder: Path) -> dict[str, Path]:
    """The float network's files, by engine."""
    import nncf
    import openvino as ov

    save_weights(twin, folder / "float.safetensors")
    batch = torch.export.Dim("batch", min=1, max=1024)
    torch.onnx.export(
        twin, (inputs,), str(folder / "float.onnx"), dynamo=True, dynamic_shapes={"x": {0: batch}}, external_data=False
    )
    model = ov.convert_model(folder / "float.onnx")
    ov.save_model(model, folder / "float.xml", compress_to_fp16=False)
    quantized = nncf.quantize(model, nncf.Dataset([one[None].numpy() for one in calibration]))
    ov.save_model(quantized, folder / "int8.xml", compress_to_fp16=False)
    names = {
        EAGER: "float.safetensors",
        COMPILED: "float.safetensors",
        ONNX: "float.onnx",
        FLOAT: "float.xml",
        INT8: "int8.xml",
    } | ({NO_AMX: "int8.xml"} if "amx_int8" in _flags() else {})
    return {engine: folder / name for engine, name in names.items()}


def _bytes(path: Path) -> int:
    weights = path.with_suffix(".bin")
    return path.stat().st_size + (weights.stat().st_size if path.suffix == ".xml" else 0)


def _in_turn(
    files: dict[str, Path],
    make: Callable[[], nn.Module],
    folder: Path,
    threads: int,
    rounds: int,
    expected: dict[str, np.ndarray],
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    workers: dict[str, tuple[Any, Connection]] = {}
    try:
        for engine, path in files.items():
            ours, theirs = context.Pipe()
            made = make if engine in (EAGER, COMPILED) else None
            process = context.Process(target=serve, args=(theirs, engine, path, made, folder, threads), daemon=True)
            process.start()
            theirs.close()  # else its end would be held open here, and a process that died waited for
            workers[engine] = process, ours
        for engine, (_, pipe) in workers.items():
            _check(engine, pipe.recv(), expected)
        seconds: dict[tuple[str, int], list[list[float]]] = {}
        for number in range(rounds):
            for batch in BATCHES:
                for engine, (_, pipe) in workers.items():
                    pipe.send(batch)
                    seconds.setdefault((engine, batch), []).append(pipe.recv())
            say(f"{threads} threads: round {number + 1} of {rounds}")
        memory = {}
        for engine, (_, pipe) in workers.items():
            pipe.send(None)
            memory[engine] = pipe.recv()
    except EOFError:
        dead = {engine: process.exitcode for engine, (process, _) in workers.items() if not process.is_alive()}
        raise UserError(f"benchmark: found engines that ended by themselves: {dead}; allowed: none") from None
    finally:
        for process, _ in workers.values():
            process.terminate()
    rows = []
    for (engine, batch), by_round in seconds.items():
        calls_seconds = [second for one in by_round for second in one]
        low, high = np.percentile(calls_seconds, [5, 95]).tolist()
        median = statistics.median(calls_seconds)
        slower = [
            statistics.median(one) / statistics.median(ours)
            for one, ours in zip(by_round, seconds[OURS, batch], strict=True)
        ]
        rows.append(
            {
                "engine": engine,
                "threads": threads,
                "batch": batch,
                "milliseconds": {"median": 1e3 * median, "5 %": 1e3 * low, "95 %": 1e3 * high},
                "images_per_second": batch / median,
                "times_ours": {"median": statistics.median(slower), "least": min(slower), "most": max(slower)},
                "file_bytes": _bytes(files[engine]),
                "peak_memory_bytes": memory[engine],
            }
        )
    return rows


def _check(engine: str, logits: np.ndarray, expected: dict[str, np.ndarray]) -> None:
    """UserError where an engine computes something else than the framework."""
    if engine == OURS:
        wrong = int((logits.argmax(1) != expected["ours"]).sum())
        if wrong:
            raise UserError(f"{engine}: found {wrong} predictions of {len(logits)} that differ; allowed: none")
        return
    error = float(np.linalg.norm(logits - expected["float"]) / np.linalg.norm(expected["float"]))
    allowed = 0.2 if engine in (INT8, NO_AMX) else 1e-4
    if not error < allowed:
        raise UserError(f"{engine}: found logits off by {error:.2g} of their norm; allowed: {allowed:g}")
