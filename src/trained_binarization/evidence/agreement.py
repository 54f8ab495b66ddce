"""Agreement: do two sets of runs of the same study give the same accuracies?

The rule, stated before any comparison was made. The measure is the accuracy by ten views (datasets/views.py), which
varies half as much from seed to seed; plain accuracy where a record of either side lacks it. Each arm (a network and a
variant) is compared by the difference of its two means, in percentage points, with Student's two-sample interval (one
variance for both sides: under the hypothesis that both are draws of one experiment, this holds). The intervals hold
together for all arms, by Bonferroni's correction, at 95 %. Seeds are not paired: on another processor, a seed no longer
means the same run.

- identical: both sides have the same seeds, and every run has the same weights, bit for bit.
- agrees: the whole interval lies within plus and minus MARGIN.
- differs: the interval excludes zero and does not lie within the margin.
- undecided: neither.

All arms together: "differs" where one arm differs; "agrees" (or "identical") where all arms do; else "undecided".
Verdicts on claims are shown side by side, but do not enter: they follow from the accuracies and the number of seeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy import stats

from trained_binarization import files, records
from trained_binarization.errors import UserError
from trained_binarization.evidence.statistics import DIGITS
from trained_binarization.evidence.verdicts import StudyVerdicts, read_verdicts
from trained_binarization.records import Percent, Record
from trained_binarization.settings import Identifier
from trained_binarization.study import FULL_PRECISION, METHOD, Study, command

MARGIN = 2.0
"""Percentage points. Smaller differences between two machines do not count."""

CONFIDENCE = 0.95
"""Of all arms' intervals together."""

NAME = "agreement.json"

Finding = Literal["identical", "agrees", "undecided", "differs"]


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class RunResult(_Content):
    """What a comparison needs of one run. Accuracies in percent, after the last epoch."""

    seed: int
    accuracy: Percent
    accuracy_views: Percent | None
    weights_sha256: str


class Arm(_Content):
    """The runs of one network and one variant, and the settings that they share."""

    network: Identifier
    variant: Identifier
    settings: dict[str, Any]
    runs: list[RunResult]

    @property
    def name(self) -> str:
        """Network and variant as a reader sees them."""
        return f"{self.network}/{self.variant}"


class Evidence(_Content):
    """One side of a comparison: a study's runs, its verdicts, and what it was trained on and with.

    reference/STUDY.json holds one.
    """

    study: Identifier
    arms: list[Arm]
    verdicts: dict[str, str]  # claim, or network/ablation: outcome
    data_checksum: str
    devices: list[str]
    packages: list[str]
    commits: list[str]


class ArmAgreement(_Content):
    """One arm on both sides. The measure in percent, differences (ours minus theirs) in percentage points."""

    network: Identifier
    variant: Identifier
    ours: dict[int, float]  # seed: what the measure says
    theirs: dict[int, float]
    equal: int  # runs of the same seed whose weights are equal bit for bit
    shared: int  # runs of the same seed
    difference: float
    low: float | None  # None: one run a side gives no interval
    high: float | None
    finding: Finding


class Agreement(_Content):
    """results/STUDY/agreement/agreement.json. Without a reference it holds the study's name alone."""

    study: Identifier
    verdict: Literal["identical", "agrees", "undecided", "differs", "no reference"]
    measure: Literal["accuracy by ten views", "accuracy"] = "accuracy"
    arms: list[ArmAgreement] = Field(default_factory=list)
    verdicts: list[tuple[str, str, str]] = Field(default_factory=list)  # name, our outcome, theirs
    notes: list[str] = Field(default_factory=list)  # what differs beside the accuracies
    ours_on: list[str] = Field(default_factory=list)  # devices
    theirs_on: list[str] = Field(default_factory=list)


def difference_interval(
    ours: Sequence[float], theirs: Sequence[float], confidence: float
) -> tuple[float, float] | None:
    """Student's two-sample interval of mean(ours) - mean(theirs), with one variance; None for one value a side.

    A side of one value is enough: the other then gives the variance. Without any spread the interval is a point.
    """
    sides = [np.asarray(side, dtype=float) for side in (ours, theirs)]
    freedom = sum(len(side) for side in sides) - 2
    if freedom < 1:
        return None
    squares = sum(float(((side - side.mean()) ** 2).sum()) for side in sides)
    error = (squares / freedom * sum(1 / len(side) for side in sides)) ** 0.5
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    middle = float(sides[0].mean() - sides[1].mean())
    return round(middle - half, DIGITS), round(middle + half, DIGITS)


def judge_difference(low: float, high: float) -> Finding:
    """The finding for an interval of differences in percentage points."""
    if low >= -MARGIN and high <= MARGIN:
        return "agrees"
    return "differs" if low > 0 or high < 0 else "undecided"


def overall(findings: Sequence[Finding]) -> Finding:
    """The verdict over all arms."""
    if "differs" in findings or "undecided" in findings:
        return "differs" if "differs" in findings else "undecided"
    return "agrees" if "agrees" in findings else "identical"


def _values(arm: Arm, views: bool) -> dict[int, float]:
    """What the measure says of each run, by seed."""
    return {run.seed: run.accuracy_views if views and run.accuracy_views else run.accuracy for run in arm.runs}


def _compare_arm(ours: Arm, theirs: Arm, confidence: float, views: bool) -> ArmAgreement:
    mine, other = ({run.seed: run for run in side.runs} for side in (ours, theirs))
    shared = [seed for seed in mine if seed in other]
    equal = sum(mine[seed].weights_sha256 == other[seed].weights_sha256 for seed in shared)
    here, there = (_values(side, views) for side in (ours, theirs))
    interval = difference_interval([*here.values()], [*there.values()], confidence)
    if equal == len(mine) == len(other):
        finding: Finding = "identical"
    else:
        finding = judge_difference(*interval) if interval else "undecided"
    return ArmAgreement(
        network=ours.network,
        variant=ours.variant,
        ours=here,
        theirs=there,
        equal=equal,
        shared=len(shared),
        difference=round(float(np.mean([*here.values()]) - np.mean([*there.values()])), DIGITS),
        low=interval[0] if interval else None,
        high=interval[1] if interval else None,
        finding=finding,
    )


def compare(ours: Evidence, theirs: Evidence) -> Agreement:
    """Ours against theirs, by the rule at the head of this file. UserError where they have no arm in common."""
    other = {arm.name: arm for arm in theirs.arms}
    pairs = [(arm, other[arm.name]) for arm in ours.arms if arm.name in other]
    if not pairs:
        found = ", ".join(other) or "none"
        raise UserError(f"study {ours.study}: the two sides have no arm in common; the other side's arms: {found}")
    confidence = 1 - (1 - CONFIDENCE) / len(pairs)
    views = all(run.accuracy_views is not None for pair in pairs for side in pair for run in side.runs)
    arms = [_compare_arm(*pair, confidence, views) for pair in pairs]
    return Agreement(
        study=ours.study,
        verdict=overall([arm.finding for arm in arms]),
        measure="accuracy by ten views" if views else "accuracy",
        arms=arms,
        verdicts=[(name, outcome, theirs.verdicts.get(name, "none")) for name, outcome in ours.verdicts.items()],
        notes=list(_notes(ours, theirs, pairs)),
        ours_on=ours.devices,
        theirs_on=theirs.devices,
    )


def _notes(ours: Evidence, theirs: Evidence, pairs: Sequence[tuple[Arm, Arm]]) -> Iterator[str]:
    """What else differs: data, settings (an arm's each), arms of one side, code, packages."""
    if ours.data_checksum != theirs.data_checksum:
        yield f"other data: checksum {ours.data_checksum[:8]} here, {theirs.data_checksum[:8]} there"
    changed = Counter(line for mine, other in pairs for line in _changed(mine.settings, other.settings))
    for line, number in changed.items():
        yield f"other settings: {line}" + ("" if number == len(pairs) else f" (in {number} of {len(pairs)} arms)")
    names = [{arm.name for arm in side.arms} for side in (ours, theirs)]
    for where, only in (("here", names[0] - names[1]), ("there", names[1] - names[0])):
        if only:
            yield f"only {where}: {', '.join(sorted(only))}"
    if ours.packages != theirs.packages:
        own, others = set(ours.packages), set(theirs.packages)
        mine, other = (", ".join(sorted(only)) or "none" for only in (own - others, others - own))
        yield f"other packages: {mine} here; {other} there"


def _changed(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Each setting that differs, with both values."""
    for key in dict.fromkeys([*ours, *theirs]):
        mine, other = ours.get(key), theirs.get(key)
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            yield from _changed(mine, other, f"{prefix}{key}.")
        elif mine != other:
            yield f"{prefix}{key}: {mine} here, {other} there"


def gather(study: str, found: Sequence[Record], verdicts: StudyVerdicts | None) -> Evidence:
    """Evidence from records; UserError where one arm's records are of several settings or data."""
    arms: dict[tuple[str, str], list[Record]] = {}
    for record in found:
        arms.setdefault((record.network, record.variant), []).append(record)
    for (network, variant), own in arms.items():
        kinds = {records.canonical([record.settings, record.data_checksum]) for record in own}
        if len(kinds) > 1:
            raise UserError(
                f"study {study}: the records of {network}/{variant} are of {len(kinds)} different settings or data; "
                "train the older ones again"
            )
    return Evidence(
        study=study,
        arms=[
            Arm(
                network=network,
                variant=variant,
                settings=own[0].settings,
                runs=[
                    RunResult(
                        seed=one.seed,
                        accuracy=one.last.accuracy,
                        accuracy_views=one.accuracy_views,
                        weights_sha256=one.weights_sha256,
                    )
                    for one in sorted(own, key=lambda record: record.seed)
                ],
            )
            for (network, variant), own in sorted(arms.items(), key=_order)
        ],
        verdicts=_outcomes(verdicts) if verdicts else {},
        data_checksum=found[0].data_checksum,
        devices=list(dict.fromkeys(record.device for record in found)),
        packages=sorted({f"{name} {version}" for record in found for name, version in record.packages.items()}),
        commits=list(dict.fromkeys(record.commit for record in found)),
    )


def _order(arm: tuple[tuple[str, str], list[Record]]) -> tuple[str, bool, bool, str]:
    """Network by network: full precision, the method, then its ablations by name."""
    network, variant = arm[0]
    return network, variant != FULL_PRECISION, variant != METHOD, variant


def _outcomes(found: StudyVerdicts) -> dict[str, str]:
    outcomes: dict[str, str] = {verdict.claim: verdict.outcome for verdict in found.verdicts}
    outcomes |= {f"{row.network}/{row.ablation}": row.outcome for row in found.comparisons}
    return outcomes | {f"{row.network}/{row.ablation}": row.outcome for row in found.family or []}


def reference_path(reference: Path, study: str) -> Path:
    """Where a study's reference evidence lies, if it has one."""
    return reference / f"{study}.json"


def read_evidence(folder: Path, study: str) -> Evidence:
    """One side of a comparison: STUDY.json in the folder, or the records below its STUDY/. UserError without either."""
    path = reference_path(folder, study)
    if path.is_file():
        found = files.read_model(path, Evidence, f"restore it: git checkout -- {path}")
        if found.study != study:
            raise UserError(f"{path}: study: found '{found.study}'; allowed: '{study}', its file's name")
        return found
    sound = records.sound(folder, study)
    if not sound:
        raise UserError(f"{folder}: found no records of study {study}, and no {study}.json; name a folder with either")
    return gather(study, sound, read_verdicts(folder / study / "verdicts.json"))


def write_reference(folder: Path, results: Path, study: Study) -> str:
    """Write a study's records, all of them done, as reference evidence: FOLDER/STUDY.json."""
    found = [records.record_of(results, study, run) for run in study.runs()]
    evidence = gather(study.study, found, read_verdicts(results / study.study / "verdicts.json"))
    path = reference_path(folder, study.study)
    files.write_json(path, evidence.model_dump(), indent=1)
    return f"{path}: written, {len(found)} runs"


def read_agreement(folder: Path) -> Agreement | None:
    """What the stage `agreement` found for the study whose results folder this is; None before it ran."""
    path = folder / "agreement" / NAME
    remedy = f"make it anew with: {command('agreement', folder.name)}"
    return files.read_model(path, Agreement, remedy) if path.exists() else None
