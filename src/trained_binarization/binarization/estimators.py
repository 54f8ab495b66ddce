"""Estimators: what stands in for the derivative of the binarization function, which is zero almost everywhere.

Each is a shape times a height. The height differs between the unit step 1[x > 0], whose exact derivative integrates
to 1, and the sign 2 * 1[x > 0] - 1, whose exact derivative integrates to 2. The formulas are plain arithmetic, so
they take torch tensors and numpy arrays of any shape. At plus and minus infinity they have their limit; NaN stays NaN.

| name             | over the step 1[x > 0]       | integral | over sign(x)           | integral |
|------------------|------------------------------|----------|------------------------|----------|
| identity         | 1                            | infinite | 1                      | infinite |
| clipped_ste      | 1[abs(x) <= 1]               | 2        | 1[abs(x) <= 1]         | 2        |
| clipped_ste_half | 1/2 1[abs(x) <= 1]           | 1        | 1[abs(x) <= 1]         | 2        |
| polynomial       | max(0, 1 - abs(x))           | 1        | max(0, 2 - 2 abs(x))   | 2        |
| long_tailed      | H(x)                         | 1.44     | 2 H(x)                 | 2.88     |
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def _bounded(x: Any) -> Any:
    """x clipped to where every shape has reached its limit: infinity times zero would be NaN."""
    return x.clip(-2, 2)


def ones(x: Any) -> Any:
    """1 everywhere: the straight-through estimator. Source: Bengio et al. 2013."""
    return _bounded(x) * 0 + 1


def window(x: Any) -> Any:
    """1[abs(x) <= 1]: the clipped straight-through estimator. Source: BNN, Courbariaux et al. 2016."""
    return (abs(_bounded(x)) <= 1) * ones(x)


def triangle(x: Any) -> Any:
    """max(0, 1 - abs(x)): the derivative of Bi-Real's piecewise polynomial, halved. Source: Liu et al. 2018."""
    size = abs(_bounded(x))
    return (size < 1) * (1 - size)


def long_tailed(x: Any) -> Any:
    """H(x) = 2 - 4 abs(x) for abs(x) <= 0.4; 0.4 for 0.4 < abs(x) <= 1; 0 beyond. Its integral is 1.44.

    Source: second-hand, from Dynamic Sparse Training (ICLR 2020), two of whose authors wrote the paper.
    """
    size = abs(_bounded(x))
    return (size <= 0.4) * (2 - 4 * size) + ((size > 0.4) & (size <= 1)) * (0 * size + 0.4)


@dataclass(frozen=True)
class Estimator:
    """A derivative estimator: `step(x)` for 1[x > 0], `sign(x)` for sign(x); both keep the shape of x."""

    shape: Callable[[Any], Any]
    step_height: float
    sign_height: float

    def step(self, x: Any) -> Any:
        """The estimated derivative of the unit step at x."""
        return self.step_height * self.shape(x)

    def sign(self, x: Any) -> Any:
        """The estimated derivative of the sign at x."""
        return self.sign_height * self.shape(x)


ESTIMATORS = {
    "identity": Estimator(ones, 1, 1),
    "clipped_ste": Estimator(window, 1, 1),
    "clipped_ste_half": Estimator(window, 0.5, 1),
    "polynomial": Estimator(triangle, 1, 2),
    "long_tailed": Estimator(long_tailed, 1, 2),
}
"""By the names that a study uses for them."""
