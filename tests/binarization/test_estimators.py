"""The estimators' formulas, windows and integrals."""

from math import isclose

import numpy as np
import pytest
import torch

from trained_binarization.binarization.estimators import ESTIMATORS, long_tailed

# (x, value over the step, value over the sign); every value holds at -x too.
POINTS: dict[str, list[tuple[float, float, float]]] = {
    "identity": [(0.0, 1, 1), (0.4, 1, 1), (1.0, 1, 1), (1.5, 1, 1), (1e6, 1, 1)],
    "clipped_ste": [(0.0, 1, 1), (0.4, 1, 1), (0.999, 1, 1), (1.0, 1, 1), (1.0000001, 0, 0), (50.0, 0, 0)],
    "clipped_ste_half": [(0.0, 0.5, 1), (0.4, 0.5, 1), (1.0, 0.5, 1), (1.0000001, 0, 0), (50.0, 0, 0)],
    "polynomial": [(0.0, 1, 2), (0.25, 0.75, 1.5), (0.5, 0.5, 1), (0.75, 0.25, 0.5), (1.0, 0, 0), (1.5, 0, 0)],
    "long_tailed": [
        (0.0, 2, 4),
        (0.1, 1.6, 3.2),
        (0.3, 0.8, 1.6),
        (0.4, 0.4, 0.8),  # 2 - 4 * 0.4: both branches give 0.4 here
        (0.4000001, 0.4, 0.8),
        (0.7, 0.4, 0.8),
        (1.0, 0.4, 0.8),
        (1.0000001, 0, 0),
        (50.0, 0, 0),
    ],
}
INTEGRALS = {  # over the step, over the sign
    "clipped_ste": (2, 2),
    "clipped_ste_half": (1, 2),
    "polynomial": (1, 2),
    "long_tailed": (1.44, 2.88),
}


def test_every_estimator_has_points_and_all_but_the_identity_an_integral() -> None:
    assert set(POINTS) == set(ESTIMATORS)
    assert set(INTEGRALS) == set(ESTIMATORS) - {"identity"}


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize("side", [1, -1])
def test_values_at_points_and_at_the_windows_edges(name: str, side: int) -> None:
    estimator = ESTIMATORS[name]
    for x, over_step, over_sign in POINTS[name]:
        at = torch.tensor([side * x], dtype=torch.float64)
        assert isclose(estimator.step(at).item(), over_step, abs_tol=1e-12), (x, estimator.step(at))
        assert isclose(estimator.sign(at).item(), over_sign, abs_tol=1e-12), (x, estimator.sign(at))


@pytest.mark.parametrize("name", INTEGRALS)
def test_integral(name: str) -> None:
    count = 400_000
    x = (np.arange(count) + 0.5) / count * 4 - 2  # midpoints of [-2, 2]
    over_step, over_sign = INTEGRALS[name]
    assert ESTIMATORS[name].step(x).sum() * 4 / count == pytest.approx(over_step, abs=1e-4)
    assert ESTIMATORS[name].sign(x).sum() * 4 / count == pytest.approx(over_sign, abs=1e-4)


def test_the_identity_has_no_window() -> None:
    x = torch.linspace(-1e4, 1e4, 1001, dtype=torch.float64)
    assert torch.equal(ESTIMATORS["identity"].step(x), torch.ones_like(x))
    assert torch.equal(ESTIMATORS["identity"].sign(x), torch.ones_like(x))


def test_long_tailed_against_its_definition_written_with_branches() -> None:
    def by_branches(x: float) -> float:
        if abs(x) <= 0.4:
            return 2 - 4 * abs(x)
        return 0.4 if abs(x) <= 1 else 0.0

    x = torch.linspace(-1.5, 1.5, 3001, dtype=torch.float64)
    expected = torch.tensor([by_branches(value) for value in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(long_tailed(x), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numpy_and_torch_agree_to_the_last_bit(name: str, dtype: str) -> None:
    edges = np.array([0, -0.0, 0.4, -0.4, 1, -1, np.nextafter(1, 2), np.nextafter(0.4, 1)])
    x = np.concatenate([edges, np.linspace(-1.5, 1.5, 1001)]).astype(dtype)
    for over in ("step", "sign"):
        by_numpy = getattr(ESTIMATORS[name], over)(x)
        by_torch = getattr(ESTIMATORS[name], over)(torch.from_numpy(x))
        assert by_torch.shape == x.shape
        np.testing.assert_array_equal(by_torch.double().numpy(), by_numpy.astype("float64"))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_even_never_negative_and_shape_kept(name: str) -> None:
    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for over in (ESTIMATORS[name].step, ESTIMATORS[name].sign):
        assert over(x).shape == x.shape
        assert torch.equal(over(x), over(-x))
        assert (over(x) >= 0).all()
