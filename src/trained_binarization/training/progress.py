"""Progress of a training: a bar on a terminal, a plain line an epoch elsewhere."""

import sys
import time
from typing import TYPE_CHECKING

from torch import Tensor
from tqdm import tqdm

if TYPE_CHECKING:
    from trained_binarization.training.loop import State


class Progress:
    """Shows loss, accuracy, images a second and time left of one run; `bar`: as a bar, where there is a terminal."""

    def __init__(self, name: str, epochs: int, batch_size: int, bar: bool = True) -> None:
        self.name, self.epochs, self.batch_size = name, epochs, batch_size
        self.bar: tqdm | None = None
        self.terminal = bar and sys.stderr.isatty()
        self.began, self.batches, self.shown = time.monotonic(), 0, 0.0

    def _rate(self) -> float:
        """Images a second since this process began, evaluation and compilation counted in."""
        return self.batches * self.batch_size / (time.monotonic() - self.began)

    def batch(self, state: "State", batches: int, sums: Tensor) -> None:
        """After a batch; reads the device's sums a few times a second only, and only for a terminal."""
        self.batches += 1
        if not self.terminal:
            return
        if self.bar is None:
            self.bar = tqdm(total=self.epochs * batches, unit="batch", desc=self.name, dynamic_ncols=True)
        self.bar.n = state.epoch * batches + state.batch
        if time.monotonic() - self.shown > 0.5:
            self.shown = time.monotonic()
            loss, correct = (sums / state.batch).tolist()
            accuracy = 100 * correct / self.batch_size
            self.bar.set_postfix_str(f"loss {loss:.3f}, {accuracy:.1f} %, {self._rate():.0f} images/s")

    def epoch(self, state: "State") -> None:
        """After an epoch."""
        if self.bar is not None:
            if state.epoch == self.epochs:
                self.bar.close()
            return
        row, rate = state.history[-1], max(self._rate(), 1e-9)
        left = state.images / state.epoch * (self.epochs - state.epoch) / rate
        evaluated = "" if row["evaluation_accuracy"] is None else f", evaluated {row['evaluation_accuracy']:.2f} %"
        print(
            f"{self.name}: epoch {state.epoch}/{self.epochs}: loss {row['train_loss']:.4f}, "
            f"accuracy {row['train_accuracy']:.2f} %{evaluated}, {rate:.0f} images/s, {left:.0f} s left",
            flush=True,
        )
