"""A training step as one CUDA graph: launched as a whole, it leaves no gaps between its two hundred kernels."""

from collections.abc import Callable

import torch
from torch import Tensor

EAGER_CALLS = 3
"""Calls before the capture: they compile, choose convolution algorithms and create the optimizers' state."""


class GraphedUpdate:
    """Calls a step of fixed shapes as it is a few times, then captures it and replays the capture.

    Every call is a real step: warming up trains like the rest, and capturing itself computes nothing.
    """

    def __init__(self, update: Callable[..., Tensor]) -> None:
        self.update = update
        self.calls = 0
        self.stream = torch.cuda.Stream()
        self.graph = torch.cuda.CUDAGraph()

    def __call__(self, *batch: Tensor) -> Tensor:
        """The step's result; it stands in place until the next call."""
        self.calls += 1
        if self.calls <= EAGER_CALLS:
            # On a side stream, as capturing asks: what a graph is to record must not have run on the default one.
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                result = self.update(*batch)
            torch.cuda.current_stream().wait_stream(self.stream)
            return result
        if self.calls == EAGER_CALLS + 1:
            self.batch = [tensor.clone() for tensor in batch]
            # Other threads may use CUDA meanwhile: one pins the memory of the batches to come.
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.result = self.update(*self.batch)
        for place, tensor in zip(self.batch, batch, strict=True):
            place.copy_(tensor, non_blocking=True)
        self.graph.replay()
        return self.result
