"""One training batch in float32 and bfloat16 against float64, layer by layer, under each instruction set.

Two questions are kept apart:

- `layers`: is a kernel wrong? Each convolution and linear layer gets the inputs and output gradients of the float64
  pass. Only rounding separates its own gradients from the float64 ones.
- `network`: how far does the whole step move? Here rounding also flips activation bits near zero, and the flips
  spread through the layers behind them. A large error of the network beside small errors of the layers is no fault.
"""

import json
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trained_binarization.binarization.layers import scaling_penalty
from trained_binarization.datasets import open_dataset
from trained_binarization.errors import UserError
from trained_binarization.study import Run, Study, load_study
from trained_binarization.training.device import describe, set_up
from trained_binarization.training.runs import network_of

INSTRUCTION_SETS = {
    "all": {},
    "AVX-512 without bfloat16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "ATEN_CPU_CAPABILITY": "avx512"},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
}
"""Environment variables that hold oneDNN and PyTorch to an instruction set; "all" leaves the choice to them."""

PRECISIONS = ("none", "bfloat16")
"""Values of `compute.autocast`; "none" is float32."""


def _gradients(network: nn.Module, images: Tensor, labels: Tensor, autocast: str) -> tuple[float, dict[str, Tensor]]:
    """(loss, gradient of every parameter in float64) of one batch."""
    network.train().zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast == "bfloat16"):
        logits = network(images)
    loss = F.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), labels)
    (loss + scaling_penalty(network)).backward()
    return loss.item(), {
        name: parameter.grad.double() for name, parameter in network.named_parameters() if parameter.grad is not None
    }


def _error(found: Tensor, exact: Tensor) -> float:
    """Norm of the difference over the norm of the exact value; 0 where both are zero."""
    difference = (found.double() - exact).norm()
    return 0.0 if difference == 0 else (difference / exact.norm()).item()


def _layer_errors(
    network: nn.Module, inputs: dict[str, Tensor], outputs: dict[str, Tensor], autocast: str
) -> dict[str, float]:
    """By layer: the greatest relative error among output, input gradient and weight gradient, on float64's values."""
    errors = {}
    for name, exact_layer in network.named_modules():
        if name not in inputs:
            continue
        values = []
        for layer, dtype, mode in (
            (exact_layer, torch.float64, "none"),
            (deepcopy(exact_layer), torch.float32, autocast),
        ):
            layer = layer.to(dtype=dtype)
            layer.zero_grad(set_to_none=True)
            x = inputs[name].detach().to(dtype, copy=True).requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=mode == "bfloat16"):
                y = layer(x)
            y.backward(outputs[name].to(y.dtype))
            values.append([y.detach(), x.grad, layer.weight.grad])
        errors[name] = max(_error(found, exact) for exact, found in zip(*values, strict=True))
    return errors


def measure_here(study: Study, run: Run) -> dict[str, Any]:
    """Compare a batch of the run's training data under this process's instruction set; relative errors by name."""
    set_up(study.compute.model_copy(update={"device": "cpu", "compile": False}))
    images = open_dataset(study.dataset, run.network)
    trained_on = images.trained_on(study.dataset, torch.device("cpu"))
    size = study.training(run).batch_size
    batch = next(iter(trained_on.batches(run.seed, 0, size, 0, slice(size))))
    pixels, labels = trained_on.load(*batch)
    start = network_of(study, run, images)

    exact = deepcopy(start).double()
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    for name, module in exact.named_modules():
        if isinstance(getattr(module, "weight", None), nn.Parameter) and not isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda _, given, name=name: inputs.update({name: given[0].detach()}))
            module.register_full_backward_hook(lambda _, __, given, name=name: outputs.update({name: given[0]}))
    loss, reference = _gradients(exact, pixels.double(), labels, "none")
    rows = {}
    for autocast in PRECISIONS:
        network = deepcopy(start).to(memory_format=torch.channels_last)
        found_loss, found = _gradients(network, pixels, labels, autocast)
        rows[autocast] = {
            "loss": abs(found_loss - loss) / loss,
            "layers": _layer_errors(deepcopy(start).double(), inputs, outputs, autocast),
            "network": {name: _error(found[name], reference[name]) for name in reference if reference[name].norm() > 0},
        }
    return rows


def measure(params: Path, network: str, variant: str) -> dict[str, Any]:
    """The comparison under every instruction set, each in a process of its own, and the machine's name."""
    study = load_study(params)
    study.find(network, variant, seed := study.seeds.pretrain[0])
    found = {}
    for name, variables in INSTRUCTION_SETS.items():
        command = [sys.executable, "-m", __name__, str(params), network, variant, str(seed)]
        done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(
                f"benchmark precision: {name}: the process ended with {done.returncode}: {done.stderr[-300:]}"
            )
        found[name] = json.loads(done.stdout)
    device, _ = describe(torch.device("cpu"))
    return {"study": study.study, "network": network, "variant": variant, "device": device, "found": found}


def table(result: dict[str, Any]) -> str:
    """The greatest error of a layer, and the median error of the network's gradients, in percent of the exact ones."""
    lines = [
        f"{result['network']}/{result['variant']} of study {result['study']}, one batch at the start of training, "
        f"{result['device']}. Relative errors against float64.",
        "",
        "| Instruction set | Precision | Worst layer by itself | Loss | Median gradient of the whole step |",
        "|---|---|--:|--:|--:|",
    ]
    for name, rows in result["found"].items():
        for precision, row in rows.items():
            worst, step = max(row["layers"].values()), median(row["network"].values())
            title = "float32" if precision == "none" else precision
            lines.append(f"| {name} | {title} | {100 * worst:.2g} % | {100 * row['loss']:.2g} % | {100 * step:.2g} % |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    file, *name, number = sys.argv[1:]
    chosen = load_study(Path(file))
    print(json.dumps(measure_here(chosen, chosen.find(name[0], name[1], int(number)))))
