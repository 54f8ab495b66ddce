"""Verdict rules on hand-made intervals, t-intervals and Holm's correction against hand-computed values."""

import pytest
from scipy import stats

from trained_binarization.evidence.statistics import (
    Interval,
    holm,
    judge_accuracy,
    judge_effect,
    judge_surpassing,
    t_interval,
)


def between(low: float, high: float) -> Interval:
    return Interval(n=3, mean=(low + high) / 2, low=low, high=high, p=0.5)


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (92.81, 93.0, "exceeded"),
        (92.8, 93.0, "reproduced"),  # at +delta: not above it
        (91.8, 92.0, "reproduced"),  # at -delta
        (91.79, 93.0, "inconclusive"),
        (91.0, 91.8, "inconclusive"),  # upper end at -delta: not below it
        (91.0, 91.79, "not reproduced"),
        (90.0, 95.0, "inconclusive"),
        (92.3, 92.3, "reproduced"),
    ],
)
def test_accuracy(low: float, high: float, outcome: str) -> None:
    assert judge_accuracy(between(low, high), 92.3, 0.5) == outcome


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.01, 0.2, "helps"),  # above zero counts first, however small
        (-0.2, -0.01, "hurts"),
        (-0.3, 0.3, "no effect larger than delta"),
        (0.0, 0.3, "no effect larger than delta"),
        (0.0, 0.0, "no effect larger than delta"),
        (-0.31, 0.1, "inconclusive"),
        (-0.1, 0.31, "inconclusive"),
    ],
)
def test_effect(low: float, high: float, outcome: str) -> None:
    assert judge_effect(between(low, high), 0.3) == outcome


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (91.31, 92.0, "surpasses"),
        (91.3, 92.0, "inconclusive"),
        (91.0, 91.3, "inconclusive"),
        (90.0, 91.29, "does not surpass"),
    ],
)
def test_surpassing(low: float, high: float, outcome: str) -> None:
    assert judge_surpassing(between(low, high), 91.3) == outcome


def test_t_interval_by_hand() -> None:
    # 1, 2, 3: mean 2, standard error 1 / sqrt(3); t(0.975, 2) = 4.302653, so half the width is 2.484138.
    interval = t_interval([1.0, 2.0, 3.0], 0.95)
    assert interval.mean == pytest.approx(2)
    assert interval.low == pytest.approx(2 - 2.484138, abs=1e-6)
    assert interval.high == pytest.approx(2 + 2.484138, abs=1e-6)
    # With two degrees of freedom, p = 1 - t / sqrt(t^2 + 2), t = 2 sqrt(3).
    assert interval.p == pytest.approx(1 - 12**0.5 / 14**0.5)


def test_zero_variance_is_a_point() -> None:
    same = t_interval([97.4, 97.4, 97.4], 0.95)
    assert (same.low, same.high, same.p) == (97.4, 97.4, 0.0)
    nothing = t_interval([0.0, 0.0, 0.0], 0.95)
    assert (nothing.low, nothing.high, nothing.p) == (0.0, 0.0, 1.0)


def test_one_value_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least two"):
        t_interval([1.0], 0.95)


def test_holm_by_hand() -> None:
    """Three comparisons; m = 4, since one has not been run. For n = 3, p = 1 - t / sqrt(t^2 + 2)."""
    samples = [[1.0, 2.0, 3.0], None, [5.0, 5.2, 5.5], [1.0, 1.2, 1.5]]
    raw = [t_interval(sample, 0.95).p for sample in samples if sample]
    assert raw == pytest.approx([0.0741799, 0.00076993, 0.0135963], abs=1e-6)
    first, missing, second, third = holm(samples, 0.95)
    assert missing is None
    assert first is not None
    assert second is not None
    assert third is not None
    # In order of p: the second is rejected at alpha/4, the third at alpha/3; the first is tested at alpha/2.
    assert [round(1 - one.confidence, 9) for one in (second, third, first)] == [0.0125, 0.016666667, 0.025]
    assert second.p == pytest.approx(4 * raw[1])
    assert third.p == pytest.approx(3 * raw[2])
    assert first.p == pytest.approx(2 * raw[0])
    half = stats.t.ppf(1 - 0.025 / 2, 2) / 3**0.5
    assert (first.interval.low, first.interval.high) == pytest.approx((2 - half, 2 + half))


def test_holm_keeps_the_level_of_the_first_that_is_not_rejected() -> None:
    samples = [[-1.0, 0.5, 1.0], [-1.0, 0.4, 1.5], [-2.0, 0.1, 1.9]]
    adjusted = holm(samples, 0.95)
    assert {round(one.confidence, 9) for one in adjusted if one} == {round(1 - 0.05 / 3, 9)}
    assert all(one is not None and one.p == 1.0 for one in adjusted)


def test_holm_intervals_agree_with_adjusted_p() -> None:
    samples = [[0.5 + 0.1 * k, 0.6, 0.72 - 0.05 * k, 0.4] for k in range(5)] + [[0.0, 0.01, -0.02, 0.3]]
    for one in holm(samples, 0.95):
        assert one is not None
        assert (one.interval.low > 0 or one.interval.high < 0) == (one.p < 0.05)
