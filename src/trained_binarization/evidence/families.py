"""Families: the confirmatory contrasts of a study, judged by the rule at the head of claims.yaml."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy import optimize, stats

from trained_binarization import records
from trained_binarization.evidence.claims import Claims, Family, Outcome
from trained_binarization.evidence.statistics import DIGITS, Interval, t_interval
from trained_binarization.settings import Identifier
from trained_binarization.study import METHOD, Run, Study

SEED = 2019
"""The seed of the numerical integration behind the pooled interval's quantile."""


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


def pooled_half_width(table: NDArray[np.float64], contrasts: int, confidence: float) -> float:
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


def _blocks(network: str, found: Mapping[Run, records.Record]) -> tuple[dict[int, Block], list[int]]:
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


@dataclass(frozen=True)
class _Sample:
    """What the rule of a family judges."""

    family: Family
    claims: Claims
    asked: Sequence[int]  # seeds
    blocks: Mapping[int, Block]  # of the seeds that are there
    left_out: Sequence[int]

    @property
    def level(self) -> float:
        """The confidence of one confirmatory interval, by Bonferroni."""
        return 1 - (1 - self.claims.rules.confidence) / len(self.family.contrasts)

    @cached_property
    def half_width(self) -> float | None:
        """Half the width of every pooled interval; None before all arms have enough seeds."""
        arms = [METHOD, *(_ablation(one.plus, one.minus) for one in self.family.contrasts.values())]
        complete = [block for block in self.blocks.values() if block.views.keys() >= set(arms)]
        if len(complete) < self.claims.rules.seeds:
            return None
        table = np.array([[block.views[arm] for arm in arms] for block in complete])
        return pooled_half_width(table, len(self.family.contrasts), self.claims.rules.confidence)

    def effect(self, plus: str, minus: str, asks: str, delta: float | None) -> Effect:
        """One contrast; without a delta it is exploratory, and not judged."""
        family, invariance, ablation = self.family, self.claims.invariance, _ablation(plus, minus)
        own = {seed: one for seed, one in self.blocks.items() if one.views.keys() >= {plus, minus}}
        views = [one.views[plus] - one.views[minus] for one in own.values()]
        level, half = (self.claims.rules.confidence, None) if delta is None else (self.level, self.half_width)
        several = len(own) >= self.claims.rules.seeds
        interval = t_interval(views, level) if several else None
        plain = t_interval([one.plain[plus] - one.plain[minus] for one in own.values()], level) if several else None
        outcome: Outcome = "not run"
        reason = ""
        if family.network in invariance.networks and ablation in invariance.ablations:
            outcome, reason = "void by construction", "the invariance: this arm cannot move the network"
        elif interval is None or len(own) < len(self.asked):
            reason = f"{len(own)} of {len(self.asked)} seeds"
        else:
            outcome = "exploratory" if delta is None else judge_contrast(interval, delta)
        return Effect(
            network=family.network,
            ablation=ablation,
            plus=plus,
            minus=minus,
            role="exploratory" if delta is None else "confirmatory",
            asks=asks,
            seeds=list(own),
            left_out=list(self.left_out),
            differences=views,
            difference=interval.mean if interval else None,
            low=interval.low if interval else None,
            high=interval.high if interval else None,
            confidence=level if interval else None,
            pooled_low=interval.mean - half if interval and half else None,
            pooled_high=interval.mean + half if interval and half else None,
            plain=plain.mean if plain else None,
            plain_low=plain.low if plain else None,
            plain_high=plain.high if plain else None,
            delta=delta,
            outcome=outcome,
            reason=reason,
        )


def _ablation(plus: str, minus: str) -> str:
    return minus if plus == METHOD else plus


def _asked(family: Family, blocks: Mapping[int, Block], confidence: float) -> list[int]:
    """The seeds that the rule judges: the declared ones, then as many of the next as their spread asks for."""
    declared = [blocks[seed].views for seed in family.seeds if seed in blocks]
    contrasts = family.contrasts.values()
    number = len(family.seeds)
    if len(declared) == number and all(views.keys() >= {c.plus, c.minus} for views in declared for c in contrasts):
        spread = max(float(np.std([one[c.plus] - one[c.minus] for one in declared], ddof=1)) for c in contrasts)
        number = seeds_needed(spread, family, confidence)
    return [*family.seeds, *islice(count(max(family.seeds) + 1), number - len(family.seeds))]


def effects(study: Study, found: Mapping[Run, records.Record], claims: Claims) -> list[Effect] | None:
    """Every contrast of the study's family, then its exploratory ablations; None where the study has no family.

    `found` holds the records of the finished runs. Nothing is judged before all seeds that the rule asks for are
    there, and a seed that it does not ask for takes no part.
    """
    family = claims.families.get(study.study)
    if family is None:
        return None
    blocks, left_out = _blocks(family.network, found)
    asked = _asked(family, blocks, claims.rules.confidence)
    there = {seed: blocks[seed] for seed in asked if seed in blocks}
    sample = _Sample(family, claims, asked, there, [seed for seed in left_out if seed in asked])
    confirmatory = [sample.effect(one.plus, one.minus, one.asks, one.delta) for one in family.contrasts.values()]
    judged = {row.ablation for row in confirmatory}
    return confirmatory + [
        sample.effect(METHOD, name, f"what is the method worth against {name}?", None)
        for name in study.ablations
        if name not in judged
    ]
