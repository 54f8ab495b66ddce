"""Step and sign: exact values forward, the estimator backward."""

import pytest
import torch
from torch import Tensor

from trained_binarization.binarization.estimators import ESTIMATORS
from trained_binarization.binarization.functions import sign, signed_step, step

DTYPES = [torch.float32, torch.bfloat16, torch.float64]


def hard_cases(dtype: torch.dtype) -> Tensor:
    """Both zeros, the smallest numbers of either sign, the largest, and many between."""
    tiny, huge = torch.finfo(dtype).smallest_normal, torch.finfo(dtype).max
    special = torch.tensor([0.0, -0.0, tiny, -tiny, huge, -huge, float("inf"), -float("inf")], dtype=dtype)
    return torch.cat([special, torch.randn(1000, generator=torch.Generator().manual_seed(1)).to(dtype)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_sign_is_never_zero_and_plus_one_at_either_zero(dtype: torch.dtype) -> None:
    x = hard_cases(dtype)
    result = sign(x)
    assert result.dtype == dtype
    assert set(result.tolist()) == {-1.0, 1.0}
    assert result[:8].tolist() == [1, 1, 1, -1, 1, -1, 1, -1]
    assert torch.equal(result > 0, x >= 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_step_is_zero_at_either_zero(dtype: torch.dtype) -> None:
    x = hard_cases(dtype)
    result = step(x)
    assert result.dtype == dtype
    assert set(result.tolist()) == {0.0, 1.0}
    assert result[:8].tolist() == [0, 0, 1, 0, 1, 0, 1, 0]
    assert torch.equal(result > 0, x > 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_signed_step_is_the_step_in_the_other_alphabet(dtype: torch.dtype) -> None:
    x = hard_cases(dtype)
    assert torch.equal(signed_step(x), 2 * step(x) - 1)
    assert set(signed_step(x).tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_backward_is_the_gradient_times_the_estimator(estimator: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    values = torch.cat([torch.tensor([0.0, 0.4, -0.4, 1.0, -1.0, 1.5]), torch.randn(200, generator=generator)])
    gradient = torch.randn(values.shape, generator=generator).to(dtype)
    for function, derivative in (
        (step, ESTIMATORS[estimator].step),
        (sign, ESTIMATORS[estimator].sign),
        (signed_step, ESTIMATORS[estimator].sign),
    ):
        x = values.to(dtype, copy=True).requires_grad_()
        function(x, estimator).backward(gradient)
        assert x.grad is not None
        assert x.grad.dtype == dtype
        expected = gradient.double() * derivative(x.detach().double())
        tolerance = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2e-2}[dtype]
        torch.testing.assert_close(x.grad.double(), expected, rtol=tolerance, atol=tolerance)


def test_gradient_vanishes_exactly_beyond_the_window() -> None:
    for estimator in set(ESTIMATORS) - {"identity"}:
        x = torch.tensor([1.001, -1.001, 7.0], requires_grad=True)
        sign(x, estimator).sum().backward()
        assert x.grad is not None
        assert x.grad.tolist() == [0, 0, 0]


def test_an_unknown_estimator_is_no_estimator() -> None:
    with pytest.raises(KeyError):
        step(torch.zeros(1), "no_such_estimator")
