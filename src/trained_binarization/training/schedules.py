"""Learning-rate schedules, as the factor on the learning rate at a point of the training."""

from math import cos, pi

WARM_UP = 0.2
"""The share of a one-cycle training in which the learning rate rises (super-convergence, Smith & Topin 2018)."""

STEPS = (0.5, 0.75)
"""Where the step schedule divides by ten: epochs 80 and 120 of 160, the authors' group's CIFAR default elsewhere."""


def factor(schedule: str, progress: float) -> float:
    """The factor in [0, 1] at progress in [0, 1): 'cosine', 'step', or 'one_cycle' (linear up, linear down to 0)."""
    if schedule == "cosine":
        return (1 + cos(pi * progress)) / 2
    if schedule == "step":
        return 0.1 ** sum(progress >= step for step in STEPS)
    rising = (progress + 1e-3) / WARM_UP
    return min(rising, (1 - progress) / (1 - WARM_UP), 1.0)
