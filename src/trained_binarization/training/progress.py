"""Progress of a training: a bar on a terminal, a plain line an epoch elsewhere."""

import sys
import time
from typing import TYPE_CHECKING

from torch import Tensor
from tqdm import tqdm

if TYPE_CHECKING:
    from trained_binarization.training.loop import State


class Progress:
    """Shows loss, accuracy, images a second and time left of one run."""

    def __init__(self, name: str, epochs: int, batch_size: int) -> None:
        self.name, self.epochs, self.batch_size = name, epochs, batch_size
        self.bar: tqdm | None = None
        self.terminal = sys.stderr.isatty()
        self.began, self.images_at_start, self.shown = time.monotonic(), -1, 0.0

    def batch(self, state: "State", batches: int, sums: Tensor) -> None:
        """After a batch; reads the device's sums a few times a second only, and only for a terminal."""
        if self.images_at_start < 0:
            self.images_at_start = state.images
        if not self.terminal:
            return
        if self.bar is None:
            self.bar = tqdm(total=self.epochs * batches, unit="batch", desc=self.name, dynamic_ncols=True)
        self.bar.n = state.epoch * batches + state.batch
        if time.monotonic() - self.shown > 0.5:
            self.shown = time.monotonic()
            loss, correct = (sums / state.batch).tolist()
            rate = (state.batch * self.batch_size) / max(state.batch * self._seconds_a_batch(state, batches), 1e-9)
            self.bar.set_postfix_str(f"loss {loss:.3f}, {100 * correct / self.batch_size:.1f} %, {rate:.0f} images/s")

    def _seconds_a_batch(self, state: "State", batches: int) -> float:
        done = (state.images - self.images_at_start) / self.batch_size + state.batch
        return (time.monotonic() - self.began) / max(done, 1)

    def epoch(self, state: "State") -> None:
        """After an epoch."""
        if self.terminal:
            if self.bar is not None and state.epoch == self.epochs:
                self.bar.close()
            return
        row = state.history[-1]
        seconds = time.monotonic() - self.began
        images = state.images - max(self.images_at_start, 0)
        left = seconds * (self.epochs - state.epoch) / max(state.epoch * images / max(state.images, 1), 1e-9)
        evaluated = "" if row["evaluation_accuracy"] is None else f", evaluated {row['evaluation_accuracy']:.2f} %"
        print(
            f"{self.name}: epoch {state.epoch}/{self.epochs}: loss {row['train_loss']:.4f}, "
            f"accuracy {row['train_accuracy']:.2f} %{evaluated}, {images / seconds:.0f} images/s, {left:.0f} s left",
            flush=True,
        )
