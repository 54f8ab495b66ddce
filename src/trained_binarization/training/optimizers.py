"""The optimizers of a training: one for the network, and the scaling factors' own."""

import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from trained_binarization.binarization.layers import alphas, latent_weights
from trained_binarization.study import Finetuning, Training


def build_optimizers(network: nn.Module, training: Training) -> list[Optimizer]:
    """The network's optimizer and, where there are trained scaling factors, plain SGD without weight decay for them.

    Weight decay has two coefficients, for latent weights and for the rest, and never touches a scaling factor. (With
    Adam on the factors their L2 term would be normalised away.) Each group keeps its top rate in `top_rate`.
    """
    factors, latent = alphas(network), latent_weights(network)
    apart = {id(parameter) for parameter in [*factors, *latent]}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in apart]
    groups = [{"params": rest, "weight_decay": training.weight_decay}]
    if isinstance(training, Finetuning) and latent:
        groups.append({"params": latent, "weight_decay": training.latent_weight_decay})
    rate, momentum = training.learning_rate, training.momentum
    optimizers: list[Optimizer] = [
        SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0, fused=True)
        if training.optimizer == "sgd"
        else Adam(groups, lr=rate, betas=(momentum, 0.999), fused=True)
    ]
    if isinstance(training, Finetuning) and factors:
        optimizers.append(SGD(factors, lr=training.alpha_learning_rate, momentum=0.0, fused=True))
    cuda = rest[0].is_cuda
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["top_rate"] = group["lr"]
            if cuda:  # a CUDA graph reads the rate, and Adam's step count, where they lie on the device
                group["lr"] = torch.tensor(group["lr"], device=rest[0].device)
                group["capturable"] = True
    return optimizers


def set_rate(optimizers: list[Optimizer], factor: float) -> None:
    """Set every group's learning rate to its top rate times the schedule's factor."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            rate = group["top_rate"] * factor
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


def state_tensors(optimizers: list[Optimizer]) -> dict[str, torch.Tensor]:
    """Every tensor of the optimizers' states, by a flat name."""
    return {
        f"optimizer/{number}/{index}/{key}": value
        for number, optimizer in enumerate(optimizers)
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
        if isinstance(value, torch.Tensor)
    }


def restore_state(optimizers: list[Optimizer], tensors: dict[str, torch.Tensor]) -> None:
    """Put back what `state_tensors` gave."""
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            kind, owner, *rest = name.split("/")
            if kind == "optimizer" and int(owner) == number:
                state.setdefault(int(rest[0]), {})[rest[1]] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        for parameter, values in optimizer.state.items():
            for key, value in values.items():
                if value.shape == parameter.shape:
                    # Fused steps walk the memory: a state must lie as its parameter does (channels last, say).
                    values[key] = torch.empty_like(parameter, requires_grad=False).copy_(value)
