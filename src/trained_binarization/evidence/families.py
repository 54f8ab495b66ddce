"""Families: the confirmatory contrasts of a study, judged by the rule at the head of claims.yaml."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy import optimize, stats

from trained_binarization import records
from trained_binarization.evidence.claims import Claims, Contrast, Family, Outcome
from trained_binarization.evidence.statistics import DIGITS, Interval, t_interval
from trained_binarization.settings import Identifier
from trained_binarization.study import METHOD, Run, Study

SEED = 2019
"""Of the numerical integration behind the pooled interval's quantile."""


class Effect(BaseModel):
    """One contrast: the accuracy of `plus` minus that of `minus`, paired by seed, in percentage points."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    network: Identifier
    ablation: Identifier
    plus: Identifier
    minus: Identifier
    role: Literal["confirmatory", "exploratory"]
    asks: str
    seeds: list[int]  # the blocks that are judged
    left_out: list[int]  # blocks whose records name different processors
    differences: list[float]  # of the accuracy by ten views, one a seed
    difference: float | None
    low: float | None  # the primary interval's ends
    high: float | None
    confidence: float | None
    pooled_low: float | None  # the interval that assumes equal variances; it decides nothing
    pooled_high: float | None
    plain: float | None  # the same difference in plain accuracy, with its t-interval
    plain_low: float | None
    plain_high: float | None
    delta: float | None
    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class Block:
    """One seed's accuracies in percent, by variant."""

    views: Mapping[str, float]
    plain: Mapping[str, float]


def judge_contrast(interval: Interval, delta: float) -> Outcome:
    """The outcome for an interval of differences (points). The margin comes first: a tiny effect is no effect."""
    low, high = round(interval.low, DIGITS), round(interval.high, DIGITS)
    if -delta <= low and high <= delta:
        return "no effect larger than delta"
    if low > 0:
        return "helps"
    return "hurts" if high < 0 else "inconclusive"


def pooled_half_width(table: "np.ndarray", contrasts: int, confidence: float) -> float:
    """Half the width (points) of the simultaneous interval for `contrasts` differences from the first arm.

    `table` has a row a seed and a column an arm. The model is arm + seed + noise of one variance; its residual has
    (arms - 1)(seeds - 1) degrees of freedom. The differences share the first arm, so their t statistics correlate by
    1/2 and the quantile is that of the multivariate t. Flipping a contrast's sign changes nothing.
    """
    seeds, arms = table.shape
    freedom = (arms - 1) * (seeds - 1)
    residual = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    deviation = float(np.sqrt((residual**2).sum() / freedom))
    if contrasts == 1:
        quantile = float(stats.t.ppf((1 + confidence) / 2, freedom))
    else:
        shape = 0.5 * (np.eye(contrasts) + 1)

        def missing(bound: float) -> float:
            ends = np.full(contrasts, bound)
            found = stats.multivariate_t.cdf(ends, None, shape, freedom, lower_limit=-ends, random_state=SEED)
            return float(found) - confidence

        quantile = float(optimize.brentq(missing, 1, 50))
    return quantile * deviation * float(np.sqrt(2 / seeds))


def seeds_needed(deviation: float, family: Family, confidence: float) -> int:
    """The family's number of seeds by its rule, from the largest standard deviation of a contrast (points)."""
    declared = len(family.seeds)
    if family.most is None or family.half_width is None:
        return declared
    level = 1 - (1 - confidence) / len(family.contrasts)
    for number in range(declared, family.most):
        if stats.t.ppf((1 + level) / 2, number - 1) * deviation / np.sqrt(number) <= family.half_width:
            return number
    return family.most


def _blocks(study: Study, network: str, found: Mapping[Run, records.Record]) -> tuple[dict[int, Block], list[int]]:
    """Every seed with its accuracies, and the seeds whose records name more than one processor."""
    blocks, left_out = {}, []
    for seed in dict.fromkeys(run.seed for run in found):
        own = {run.variant: one for run, one in found.items() if (run.network, run.seed) == (network, seed)}
        if len({one.device for one in own.values()}) > 1:
            left_out.append(seed)
            continue
        views = {name: one.accuracy_views for name, one in own.items() if one.accuracy_views is not None}
        blocks[seed] = Block(views, {name: one.last.accuracy for name, one in own.items()})
    return blocks, left_out


def effects(study: Study, found: Mapping[Run, records.Record], claims: Claims) -> list[Effect] | None:
    """Every contrast of the study's family, then its exploratory ablations; None where the study has no family.

    `found` holds the records of the finished runs. A contrast is judged on the blocks that have both of its arms, once
    every declared seed is there.
    """
    family = claims.families.get(study.study)
    if family is None:
        return None
    blocks, left_out = _blocks(study, family.network, found)
    level = 1 - (1 - claims.rules.confidence) / len(family.contrasts)
    arms = [METHOD, *dict.fromkeys(_ablation(one) for one in family.contrasts.values())]
    complete = [block for block in blocks.values() if all(arm in block.views for arm in arms)]
    half = None
    if len(complete) >= claims.rules.seeds:
        table = np.array([[block.views[arm] for arm in arms] for block in complete])
        half = pooled_half_width(table, len(family.contrasts), claims.rules.confidence)
    confirmed = [
        _effect(study, family, contrast, blocks, left_out, level, half, claims)
        for contrast in family.contrasts.values()
    ]
    questions = {
        name: Contrast(plus=METHOD, minus=name, delta=1, asks=f"what is the method worth against {name}?")
        for name in study.ablations
        if name not in arms
    }
    return confirmed + [
        _effect(study, family, one, blocks, left_out, claims.rules.confidence, None, claims)
        for one in questions.values()
    ]


def _ablation(contrast: Contrast) -> str:
    return contrast.minus if contrast.plus == METHOD else contrast.plus


def _effect(
    study: Study,
    family: Family,
    contrast: Contrast,
    blocks: Mapping[int, Block],
    left_out: Sequence[int],
    level: float,
    half: float | None,
    claims: Claims,
) -> Effect:
    ablation, confirmatory = _ablation(contrast), contrast in family.contrasts.values()
    own = {seed: one for seed, one in blocks.items() if {contrast.plus, contrast.minus} <= one.views.keys()}
    differences = [one.views[contrast.plus] - one.views[contrast.minus] for one in own.values()]
    plain = [one.plain[contrast.plus] - one.plain[contrast.minus] for one in own.values()]
    several = len(own) >= claims.rules.seeds
    interval = t_interval(differences, level) if several else None
    beside = t_interval(plain, level) if several else None
    outcome: Outcome
    missing = [seed for seed in family.seeds if seed not in own]
    reason = ""
    if family.network in claims.invariance.networks and ablation in claims.invariance.ablations:
        outcome, reason = (
            "void by construction",
            "the invariance: this arm cannot move the network",
        )
    elif interval is None or missing:
        outcome, reason = "not run", f"{len(own)} of {len(family.seeds)} declared seeds"
    else:
        outcome = judge_contrast(interval, contrast.delta) if confirmatory else "exploratory"
    mean = interval.mean if interval else None
    return Effect(
        network=family.network,
        ablation=ablation,
        plus=contrast.plus,
        minus=contrast.minus,
        role="confirmatory" if confirmatory else "exploratory",
        asks=contrast.asks,
        seeds=list(own),
        left_out=list(left_out),
        differences=differences,
        difference=mean,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        confidence=level if interval else None,
        pooled_low=mean - half if mean is not None and half is not None else None,
        pooled_high=mean + half if mean is not None and half is not None else None,
        plain=beside.mean if beside else None,
        plain_low=beside.low if beside else None,
        plain_high=beside.high if beside else None,
        delta=contrast.delta if confirmatory else None,
        outcome=outcome,
        reason=reason,
    )
