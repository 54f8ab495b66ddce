"""The invariance under scaling factors in words: what theory predicts, and what a study measured."""

from dataclasses import dataclass

from trained_binarization.evidence import tables
from trained_binarization.evidence.claims import Claims
from trained_binarization.evidence.verdicts import Comparison, StudyVerdicts
from trained_binarization.study import Study

THEORY = (
    "Where a BatchNorm in training mode follows a binary convolution, multiplying that layer's weights or activations "
    "by a positive factor changes nothing behind the normalization, as long as its epsilon is negligible. The data "
    "loss then has zero gradient for every scaling factor, and an L2 term only shrinks the factors, until they are so "
    "small that the epsilon moves them: a factor's value says nothing about what the data ask for. The same holds for "
    "activations in {-1, +1} = 2 {0, 1} - 1, padded with the lower value. What is left to such an ablation is the "
    "epsilon, the running statistics, and rounding: max-pooling breaks the ties between equal sums by it."
)


@dataclass(frozen=True)
class Finding:
    """One ablation that should be void, as measured: the sentence says no more than the record bears out."""

    network: str
    ablation: str
    link: str
    sentence: str


def prediction(study: Study, claims: Claims) -> str:
    """What the invariance predicts for the study's networks; empty where it has none of these ablations."""
    ablations = [name for name in claims.invariance.ablations if name in study.ablations]
    if not ablations:
        return ""
    bound = [claims.title(name) for name in study.networks if name in claims.invariance.networks]
    free = [claims.title(name) for name in study.networks if name not in claims.invariance.networks]
    names = ", ".join(ablations)
    if study.method.activation_window == "alpha":
        return f"{THEORY} Here the estimator's window is in units of alpha, which breaks it: nothing is predicted."
    sentences = [THEORY]
    if bound:
        sentences.append(f"For {', '.join(bound)} this predicts that these leave the accuracy where it is: {names}.")
    if free:
        sentences.append(f"{', '.join(free)} has layers without BatchNorm behind them: nothing is predicted there.")
    return " ".join(sentences)


def _sentence(row: Comparison, predicted: bool) -> str:
    if row.outcome == "not run" or row.difference is None:
        return f"not measured: {row.reason}."
    change = tables.number(row.difference, sign=True).text
    measured = f"{change} points {tables.interval(row.low, row.high, sign=True).text} over {len(row.seeds)} seeds"
    if row.outcome == "no effect larger than delta":
        end = "as predicted" if predicted else "though nothing predicted it"
        return f"{measured}. The whole interval lies within ±{row.delta:g} points, {end}."
    if row.outcome == "inconclusive":
        end = (
            "it does not contradict the prediction, and does not confirm it either"
            if predicted
            else "it decides nothing"
        )
        return f"{measured}. The interval includes zero but reaches beyond ±{row.delta:g} points: {end}."
    if not predicted:
        return f"{measured}. The interval excludes zero."
    return (
        f"{measured}. The interval excludes zero, which the invariance does not explain. What it leaves open is "
        "BatchNorm's epsilon, its running statistics, and the precision of the arithmetic."
    )


def what_was_found(study: Study, found: StudyVerdicts, claims: Claims) -> list[Finding]:
    """The measured differences of the ablations that the invariance speaks of."""
    absolute = study.method.activation_window == "absolute"
    return [
        Finding(
            network=claims.title(row.network),
            ablation=row.ablation,
            link=tables.group(row.network, row.ablation),
            sentence=_sentence(row, absolute and row.network in claims.invariance.networks),
        )
        for row in found.comparisons
        if row.ablation in claims.invariance.ablations
    ]
