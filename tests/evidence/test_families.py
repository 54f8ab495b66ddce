"""Families: the order of the outcomes, blocks, coverage, and every committed number by other arithmetic."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic import CLAIMS

from trained_binarization.evidence.claims import load_claims
from trained_binarization.evidence.families import Effect, effects, judge_contrast, pooled_half_width, seeds_needed
from trained_binarization.evidence.statistics import Interval, t_interval
from trained_binarization.study import METHOD, Run, Study, load_study

ROOT = CLAIMS.parent


def _study(name: str) -> Study:
    return load_study(ROOT / "studies" / f"{name}.yaml")


def _found(study: Study, *, device: dict[Run, str] | None = None, without: set[Run] = frozenset()) -> dict[Run, Any]:  # type: ignore[assignment]
    """Stand-ins for records: accuracies by ten views that differ by arm, seed and a little noise."""
    noise = np.random.default_rng(0)
    found = {}
    for run in study.runs():
        accuracy = 70 + run.seed + {"clipped_ste": -2.0}.get(run.variant, 0.0) + noise.normal(0, 0.05)
        record = {"device": (device or {}).get(run, "a"), "accuracy_views": accuracy}
        record["last"] = SimpleNamespace(accuracy=accuracy + noise.normal(0, 0.5))
        if run not in without:
            found[run] = SimpleNamespace(**record)
    return found


def _judged(study: Study, found: dict[Run, Any]) -> dict[str, Effect]:
    rows = effects(study, found, load_claims(CLAIMS))
    assert rows is not None
    return {row.ablation: row for row in rows}


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.05, 0.20, "no effect larger than delta"),  # above zero, but too small to matter
        (-0.30, 0.30, "no effect larger than delta"),
        (-0.20, -0.05, "no effect larger than delta"),
        (0.05, 0.40, "helps"),
        (-0.40, -0.05, "hurts"),
        (-0.05, 0.40, "inconclusive"),
    ],
)
def test_the_margin_is_looked_at_first(low: float, high: float, outcome: str) -> None:
    assert judge_contrast(Interval(6, (low + high) / 2, low, high, 0.5), 0.3) == outcome


def test_a_study_without_a_family_has_no_contrasts() -> None:
    assert effects(_study("cifar10"), {}, load_claims(CLAIMS)) is None


def test_a_contrast_has_its_declared_direction() -> None:
    rows = _judged(_study("ablation-resnet"), _found(_study("ablation-resnet")))
    assert [rows[name].role for name in rows] == ["confirmatory"] * 3 + ["exploratory"]
    assert (rows["l2_dose"].plus, rows["l2_dose"].minus) == ("l2_dose", METHOD)
    assert rows["clipped_ste"].outcome == "helps"
    assert rows["frozen_scaling"].outcome == "no effect larger than delta"
    assert rows["no_scaling"].outcome == "exploratory"
    assert rows["frozen_scaling"].confidence == pytest.approx(1 - 0.05 / 3)
    assert rows["no_scaling"].confidence == pytest.approx(0.95)


def test_a_block_of_two_processors_is_left_out_and_named() -> None:
    study = _study("ablation-resnet")
    odd = Run(network="resnet18", variant="no_scaling", seed=3)
    rows = _judged(study, _found(study, device={odd: "b"}))
    for row in rows.values():
        assert (row.left_out, row.seeds) == ([3], [0, 1, 2, 4, 5])
        assert (row.outcome, row.reason) == ("not run", "5 of 6 seeds")


def test_fewer_seeds_than_declared_are_not_judged() -> None:
    study = _study("ablation-resnet")
    rows = _judged(study, _found(study, without={Run(network="resnet18", variant="l2_dose", seed=0)}))
    assert (rows["l2_dose"].outcome, rows["l2_dose"].reason) == ("not run", "5 of 6 seeds")
    assert rows["clipped_ste"].outcome == "helps"


def test_a_seed_that_the_rule_does_not_ask_for_takes_no_part() -> None:
    study = _study("ablation-resnet")
    seeds = {stage: list(range(9)) for stage in ("pretrain", "finetune", "ablate")}
    more = study.model_copy(update={"seeds": study.seeds.model_copy(update=seeds)})
    assert {tuple(row.seeds) for row in _judged(more, _found(more)).values()} == {(0, 1, 2, 3, 4, 5)}


def test_a_wide_spread_asks_for_the_next_seeds() -> None:
    study = _study("ablation-resnet")
    found = _found(study)
    for run, record in found.items():
        if run.variant == "l2_dose":
            record.accuracy_views += [2.0, -2.0][run.seed % 2]
    rows = _judged(study, found)
    assert {(row.outcome, row.reason) for row in rows.values()} == {("not run", "6 of 16 seeds")}


def test_what_the_invariance_voids_is_void_by_construction() -> None:
    study = _study("ablation-vgg")
    rows = _judged(study, _found(study))
    assert rows["no_scaling"].outcome == "void by construction"
    assert rows["clipped_ste"].outcome == "helps"
    assert rows["polynomial"].outcome == "exploratory"


@pytest.mark.parametrize(("deviation", "number"), [(0.1, 6), (0.6, 12), (5.0, 16)])
def test_the_number_of_seeds_follows_from_the_spread(deviation: float, number: int) -> None:
    family = load_claims(CLAIMS).families["ablation-resnet"]
    assert seeds_needed(deviation, family, 0.95) == number


def _coverage(deviations: list[float], trials: int = 1500, seeds: int = 6) -> tuple[float, float]:
    """How often all three paired intervals, and all three pooled ones, hold their true difference (zero)."""
    random = np.random.default_rng(7)
    unit = pooled_half_width(np.eye(seeds, 4), 3, 0.95) / _residual(np.eye(seeds, 4))
    paired = pooled = 0
    for _ in range(trials):
        table = random.normal(0, 1, (seeds, 1)) + random.normal(0, deviations, (seeds, 4))
        differences = table[:, :1] - table[:, 1:]
        intervals = [t_interval(list(column), 1 - 0.05 / 3) for column in differences.T]
        paired += all(one.low <= 0 <= one.high for one in intervals)
        pooled += bool((np.abs(differences.mean(0)) <= unit * _residual(table)).all())
    return paired / trials, pooled / trials


def _residual(table: NDArray[np.float64]) -> float:
    """The standard deviation of what arm and seed leave."""
    left = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    seeds, arms = table.shape
    return float(np.sqrt((left**2).sum() / ((arms - 1) * (seeds - 1))))


def test_coverage_with_equal_variances() -> None:
    paired, pooled = _coverage([0.14] * 4)
    assert paired > 0.94  # Bonferroni is on the safe side
    assert pooled == pytest.approx(0.95, abs=0.02)


def test_with_unequal_variances_the_pooled_interval_fails_and_the_primary_one_holds() -> None:
    paired, pooled = _coverage([0.14, 0.14, 0.14, 0.6])
    assert paired > 0.94
    assert pooled < 0.93


def test_a_single_contrast_pools_to_the_paired_interval() -> None:
    table = np.random.default_rng(1).normal(0, 1, (8, 2))
    interval = t_interval(list(table[:, 0] - table[:, 1]), 0.95)
    assert pooled_half_width(table, 1, 0.95) == pytest.approx((interval.high - interval.low) / 2)


def _t_quantile(confidence: float, freedom: int) -> float:
    """Student's two-sided quantile by summing his density; no statistics library."""
    x = np.linspace(0, 60, 600_001)
    density = (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
    total = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(np.interp(confidence, total / total[-1], x))


def test_the_committed_contrasts_follow_from_the_records_by_other_arithmetic() -> None:
    folder = ROOT / "results" / "ablation-resnet"
    rows = json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))["family"]
    family = load_claims(CLAIMS).families["ablation-resnet"]

    def scored(variant: str) -> NDArray[np.float64]:
        paths = [Path(folder, "runs", "resnet18", variant, f"seed{seed}", "record.json") for seed in family.seeds]
        return np.array([json.loads(path.read_text(encoding="utf-8"))["accuracy_views"] for path in paths])

    assert {row["ablation"] for row in rows} == {*family.contrasts, "no_scaling"}
    spread = []
    for row in rows:
        differences = scored(row["plus"]) - scored(row["minus"])
        confirmatory = row["ablation"] in family.contrasts
        level = 1 - 0.05 / len(family.contrasts) if confirmatory else 0.95
        half = _t_quantile(level, len(differences) - 1) * differences.std(ddof=1) / np.sqrt(len(differences))
        assert row["differences"] == pytest.approx(differences, abs=1e-6)
        assert row["difference"] == pytest.approx(differences.mean(), abs=1e-6)
        assert (row["low"], row["high"]) == pytest.approx(
            (differences.mean() - half, differences.mean() + half), abs=1e-4
        )
        if confirmatory:
            spread.append(differences.std(ddof=1))
            inside = max(abs(differences.mean() - half), abs(differences.mean() + half)) <= row["delta"]
            said = "no effect larger than delta" if inside else "helps" if differences.mean() > half else "other"
            assert row["outcome"] == said
    assert seeds_needed(max(spread), family, 0.95) == len(family.seeds)  # so no further seed is asked for


def test_the_rule_is_older_than_every_record_that_it_judges() -> None:
    today = yaml_families((ROOT / "claims.yaml").read_text(encoding="utf-8"))
    paths = sorted((ROOT / "results/ablation-resnet/runs").glob("*/*/seed*/record.json"))
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    assert len(records) == 6 * 6
    assert all(record["clean"] for record in records)
    for commit in {record["commit"] for record in records}:
        shown = subprocess.run(["git", "show", f"{commit}:claims.yaml"], cwd=ROOT, capture_output=True, text=True)
        if shown.returncode:
            pytest.skip("the history is not here: a source archive, or a shallow clone")
        assert yaml_families(shown.stdout) == today


def yaml_families(text: str) -> str:
    """The part of claims.yaml that declares the families, as it stands there."""
    return text[text.index("\nfamilies:") : text.index("\ninvariance:")]
