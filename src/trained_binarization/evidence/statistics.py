"""Intervals over seeds, and the rules that turn an interval into an outcome (claims.yaml states them in words)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from trained_binarization.evidence.claims import Outcome

DIGITS = 9
"""Interval ends are rounded to this many decimals before they are compared, so that 92.8 - 92.3 is 0.5."""


@dataclass(frozen=True)
class Interval:
    """The mean of a sample, its two-sided t-interval, and p of the hypothesis that the mean is zero."""

    n: int
    mean: float
    low: float
    high: float
    p: float


def t_interval(values: Sequence[float], confidence: float) -> Interval:
    """Student's t-interval of the mean of at least two values.

    With zero variance the interval is the point itself (t knows no more than the sample), and p is 1 for a mean of
    zero, else 0.
    """
    sample = np.asarray(values, dtype=float)
    n, mean = len(sample), float(sample.mean())
    if n < 2:
        raise ValueError("an interval takes at least two values")
    # Spread below rounding noise is no spread: 97.5, 97.5, 97.5 may have a mean that is off in the last bit.
    error = float(sample.std(ddof=1)) / n**0.5
    if error < 1e-12:
        mean = round(mean, DIGITS)
        return Interval(n, mean, mean, mean, 1.0 if mean == 0 else 0.0)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, n - 1))
    return Interval(n, mean, mean - half, mean + half, p)


@dataclass(frozen=True)
class Adjusted:
    """An interval and p value that hold together with those of the other comparisons."""

    interval: Interval
    confidence: float
    p: float


def holm(samples: Sequence[Sequence[float] | None], confidence: float) -> list[Adjusted | None]:
    """Intervals and p values of paired differences, corrected by Holm's method over the whole family.

    With m comparisons ordered by p, the k-th is tested at alpha / (m - k + 1), alpha = 1 - confidence, until one is
    not rejected; that one and all behind it keep its level. Each interval is the t-interval at its comparison's
    level, so it excludes zero exactly where Holm's test rejects. These intervals agree with the test; they are not
    simultaneous confidence intervals in the stricter sense, which Holm's method does not have.
    The adjusted p is max over j <= k of (m - j + 1) p_j, at most 1.
    A sample of None (not measured yet) counts as p = 1: the family is what the study declares, not what has been run.
    """
    alpha, m = 1 - confidence, len(samples)
    plain = [None if sample is None else t_interval(sample, confidence) for sample in samples]
    order = sorted(range(m), key=lambda i: (one.p if (one := plain[i]) else 1.0, plain[i] is None))
    adjusted: list[Adjusted | None] = [None] * m
    level, p_so_far, rejecting = alpha / max(m, 1), 0.0, True
    for rank, i in enumerate(order):
        sample, interval = samples[i], plain[i]
        if sample is None or interval is None:
            continue
        if rejecting:
            level = alpha / (m - rank)
            rejecting = interval.p < level
        p_so_far = max(p_so_far, min(1.0, (m - rank) * interval.p))
        adjusted[i] = Adjusted(t_interval(sample, 1 - level), 1 - level, p_so_far)
    return adjusted


def judge_accuracy(interval: Interval, value: float, delta: float) -> Outcome:
    """The outcome for an accuracy interval (percent) against the paper's value with margin delta (points)."""
    low, high = round(interval.low - value, DIGITS), round(interval.high - value, DIGITS)
    if low > delta:
        return "exceeded"
    if low >= -delta:
        return "reproduced"
    return "not reproduced" if high < -delta else "inconclusive"


def judge_effect(interval: Interval, delta: float) -> Outcome:
    """The outcome for an interval of differences, method minus ablation (points), with margin delta (points)."""
    low, high = round(interval.low, DIGITS), round(interval.high, DIGITS)
    if low > 0:
        return "helps"
    if high < 0:
        return "hurts"
    return "no effect larger than delta" if -delta <= low and high <= delta else "inconclusive"


def judge_surpassing(interval: Interval, best: float) -> Outcome:
    """The outcome for an accuracy interval (percent) against the best printed number (percent)."""
    if round(interval.low - best, DIGITS) > 0:
        return "surpasses"
    return "does not surpass" if round(interval.high - best, DIGITS) < 0 else "inconclusive"
