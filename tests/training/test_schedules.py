"""Learning-rate schedules, value by value."""

from itertools import pairwise
from math import cos, pi

import pytest

from trained_binarization.training.schedules import factor


@pytest.mark.parametrize(
    ("schedule", "progress", "expected"),
    [
        ("cosine", 0.0, 1.0),
        ("cosine", 1 / 3, 0.75),
        ("cosine", 0.5, 0.5),
        ("cosine", 2 / 3, 0.25),
        ("cosine", 0.9, (1 + cos(0.9 * pi)) / 2),
        ("step", 0.0, 1.0),
        ("step", 79 / 160, 1.0),
        ("step", 80 / 160, 0.1),
        ("step", 119 / 160, 0.1),
        ("step", 120 / 160, 0.01),
        ("step", 0.999, 0.01),
        ("one_cycle", 0.0, 0.005),
        ("one_cycle", 0.099, 0.5),
        ("one_cycle", 0.2, 1.0),
        ("one_cycle", 0.6, 0.5),
        ("one_cycle", 0.8, 0.25),
        ("one_cycle", 0.996, 0.005),
    ],
)
def test_values(schedule: str, progress: float, expected: float) -> None:
    assert factor(schedule, progress) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("schedule", ["cosine", "step", "one_cycle"])
def test_never_negative_never_above_the_top_and_small_at_the_end(schedule: str) -> None:
    values = [factor(schedule, step / 1000) for step in range(1000)]
    assert min(values) > 0
    assert max(values) == pytest.approx(1.0, abs=0.01)
    assert max(values) <= 1
    assert values[-1] <= 0.0101
    top = values.index(max(values))
    assert all(a >= b for a, b in pairwise(values[top:]))
    assert all(a <= b for a, b in pairwise(values[: top + 1]))
