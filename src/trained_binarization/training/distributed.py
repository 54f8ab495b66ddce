"""Data-parallel training: one process a GPU, or several on a CPU, started by torchrun.

The global batch is the study's, whatever the number of processes: each takes its part of every batch, BatchNorm's
statistics are the whole batch's, and gradients are averaged. So the number of processes is part of how a training is
computed, like the number of threads, and no part of what is trained.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from trained_binarization.errors import UserError
from trained_binarization.study import Study

PATIENCE = timedelta(days=1)
"""How long a process waits for another: the first may have to look at all of ImageNet before."""


@dataclass(frozen=True)
class World:
    """The processes of a training, seen from one of them; `control` carries words that never wait for a GPU."""

    rank: int = 0
    size: int = 1
    control: Any = None

    def part(self, size: int) -> slice:
        """Which of a batch's images are this process's; its size is a multiple of the number of processes."""
        share = size // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def total(self, values: Tensor) -> Tensor:
        """The sum of `values` over all processes, in place of them."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def agree(self, wish: int) -> int:
        """The greatest wish of all processes, the same in each, so that none waits for one that has stopped."""
        if self.size == 1:
            return wish
        wishes = torch.tensor(wish)
        dist.all_reduce(wishes, dist.ReduceOp.MAX, self.control)
        return int(wishes)

    def from_first(self, value: Any) -> Any:
        """The first process's value, in every process."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, 0, self.control)
        return values[0]


ALONE = World()


@contextmanager
def join(study: Study) -> Iterator[World]:
    """The processes that torchrun started this one among; alone where it did not. Only the first prints to stdout.

    UserError where the study's batches cannot be shared by so many, or there are fewer GPUs than processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    for stage, training in (("pretrain", study.pretrain), ("finetune", study.finetune)):
        if training.batch_size % size:
            raise UserError(
                f"study {study.study}: {stage}.batch_size: found {training.batch_size}; "
                f"allowed: a multiple of {size}, the number of processes"
            )
    cuda = study.compute.device != "cpu" and torch.cuda.is_available()
    if cuda:
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise UserError(
                f"torchrun: --nproc-per-node: found more than {local}; allowed: at most {gpus}, the GPUs here"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if cuda else "gloo")
    rank = dist.get_rank()
    if rank > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  for the rest of the process
    try:
        yield World(rank, size, dist.new_group(backend="gloo", timeout=PATIENCE))
    finally:
        dist.destroy_process_group()


class _Total(torch.autograd.Function):
    """The sum over processes; its gradient is the sum of the processes' gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics are the global batch's. torch's own SyncBatchNorm needs CUDA.

    Mean and variance are summed one after the other, each over all processes, so no difference of squares is taken.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W); equal numbers of images in every process are assumed."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        values = x if x.dtype == torch.float64 else x.float()
        count = x.numel() // x.shape[1] * dist.get_world_size()
        mean = _Total.apply(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = _Total.apply(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def data_parallel(network: nn.Module) -> nn.Module:
    """The network as trained by several processes; it shares its parameters, and `network` stays what is saved."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlobalBatchNorm2d
    return DistributedDataParallel(network)
