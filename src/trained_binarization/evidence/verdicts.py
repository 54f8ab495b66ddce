"""Verdicts: every claim of the paper judged by a study's records, and `verify` over all studies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

from trained_binarization import records
from trained_binarization.errors import UserError, one_line
from trained_binarization.evidence import statistics
from trained_binarization.evidence.claims import (
    AccuracyClaim,
    Claims,
    HelpsClaim,
    Meaning,
    Outcome,
    SurpassesClaim,
    load_claims,
)
from trained_binarization.evidence.families import Effect, effects
from trained_binarization.evidence.frames import done_records, no_images, runs_frame
from trained_binarization.evidence.sums import require_sums
from trained_binarization.files import read_model
from trained_binarization.settings import Identifier
from trained_binarization.study import FULL_PRECISION, METHOD, Run, Study, command, load_study

AnyClaim = AccuracyClaim | HelpsClaim | SurpassesClaim

DISTILLED = "distilled from the full-precision network, which is not the paper's method"


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Verdict(_Content):
    """One claim judged by one study. Accuracies in percent; for an ingredient `ours` is a difference in points."""

    claim: Identifier
    kind: str
    network: Identifier
    ablation: Identifier | None
    stand_in: str | None  # what the study stands in with; None where it fills the claim's cell
    outcome: Outcome
    says: Meaning
    seeds: list[int]
    ours: float | None
    low: float | None
    high: float | None
    reference: float | None  # the paper's value, or the best printed number
    delta: float | None
    reason: str
    command: str | None  # what makes the first run that is missing


class Comparison(_Content):
    """The method against one ablation, paired by seed. Accuracies in percent, differences in points."""

    network: Identifier
    ablation: Identifier
    changes: str
    seeds: list[int]
    method: float | None  # mean over the common seeds
    ablated: float | None
    differences: list[float]
    difference: float | None
    low: float | None
    high: float | None
    confidence: float | None  # of this interval, after Holm's correction
    p: float | None  # adjusted
    delta: float
    outcome: Outcome
    reason: str
    command: str | None


class Accuracy(_Content):
    """A network's mean accuracy (percent, last epochs) by one variant, with its interval and size in bytes."""

    network: Identifier
    variant: Identifier
    seeds: list[int]
    mean: float
    low: float | None
    high: float | None
    top5: float | None  # mean, where it is customary
    best: float  # mean of the best epochs; shown, never used
    bytes: int | None  # one bit a binary weight; 32 bits all through for full precision


class StudyVerdicts(_Content):
    """results/<study>/verdicts.json: all that a study's records say."""

    study: Identifier
    title: str
    stand_in: str | None
    dataset: Identifier
    scored: str
    networks: list[Identifier]
    runs_asked: int
    runs_done: int
    not_run: list[dict[str, str]]  # run, reason, command
    verdicts: list[Verdict]
    comparisons: list[Comparison]
    accuracies: list[Accuracy]
    family: list[Effect] | None = None  # of a study that claims.yaml declares a family for; it has no comparisons


class _Sample:
    """The accuracies of a study's finished runs, by network and variant."""

    def __init__(self, study: Study, frame: pd.DataFrame) -> None:
        self.study, self.frame = study, frame
        self.done = frame[frame["status"] == "done"]

    def accuracies(self, network: str, variant: str, column: str = "accuracy") -> dict[int, float]:
        rows = self.done[(self.done["network"] == network) & (self.done["variant"] == variant)]
        return {int(seed): float(value) for seed, value in zip(rows["seed"], rows[column], strict=True)}

    def too_few(self, network: str, variants: list[str], found: int, needed: int) -> tuple[str, str | None]:
        """Why fewer than `needed` seeds are there, and the command that makes the first run that is not."""
        asked = self.frame[(self.frame["network"] == network) & self.frame["variant"].isin(variants)]
        missing = asked[asked["status"] != "done"]
        if missing.empty:
            return f"the study has {found} common seeds; at least {needed} are judged", None
        first = missing.iloc[0]
        if first["reason"] == no_images(self.study):
            return str(first["reason"]), str(first["command"])
        name = Run(network=first["network"], variant=first["variant"], seed=int(first["seed"]))
        return f"{found} of at least {needed} seeds done; {name}: {first['reason']}", str(first["command"])


def stands_in(study: Study, claim: AnyClaim) -> str | None:
    """Why the study does not fill the claim's cell; None where it does."""
    if study.stand_in is not None:
        return study.stand_in
    if study.study != claim.study:
        return f"the claim is for study {claim.study}"
    if study.finetune.distillation:
        return DISTILLED
    if study.dataset.name != claim.dataset:
        return f"data set {study.dataset.name} instead of {claim.dataset}"
    width = study.architecture[claim.network].width  # type: ignore[index]  # the study trains this network
    return f"width {width:g} instead of 1" if width != 1 else None


def _changes(study: Study, ablation: str) -> str:
    return ", ".join(f"{key} = {'null' if value is None else value}" for key, value in study.variants[ablation].items())


def _compare(study: Study, sample: _Sample, claims: Claims) -> list[Comparison]:
    """Every ablation of the study against the method, Holm's correction over all of them."""
    deltas = {claim.ablation: claim.delta for claim in claims.claims.values() if claim.kind == "helps"}
    default = max(deltas.values(), default=0.3)
    pairs = [(network, ablation) for network in study.networks for ablation in study.ablations]
    common: list[dict[int, tuple[float, float]]] = []
    for network, ablation in pairs:
        method, ablated = sample.accuracies(network, METHOD), sample.accuracies(network, ablation)
        common.append({seed: (method[seed], ablated[seed]) for seed in ablated if seed in method})
    enough = [len(both) >= claims.rules.seeds and study.dataset.validation == 0 for both in common]
    samples = [[m - a for m, a in both.values()] if ok else None for both, ok in zip(common, enough, strict=True)]
    rows = []
    for (network, ablation), both, adjusted in zip(
        pairs, common, statistics.holm(samples, claims.rules.confidence), strict=True
    ):
        delta, seeds = deltas.get(ablation, default), list(both)
        outcome: Outcome = "not run"
        reason, command = "", None
        if study.dataset.validation:
            reason = "validation images were scored; only the test set is judged"
        elif adjusted is None:
            reason, command = sample.too_few(network, [METHOD, ablation], len(seeds), claims.rules.seeds)
        else:
            outcome = statistics.judge_effect(adjusted.interval, delta)
        differences = [m - a for m, a in both.values()]
        rows.append(
            Comparison(
                network=network,
                ablation=ablation,
                changes=_changes(study, ablation),
                seeds=seeds,
                method=sum(m for m, _ in both.values()) / len(both) if both else None,
                ablated=sum(a for _, a in both.values()) / len(both) if both else None,
                differences=differences,
                difference=sum(differences) / len(differences) if differences else None,
                low=adjusted.interval.low if adjusted else None,
                high=adjusted.interval.high if adjusted else None,
                confidence=adjusted.confidence if adjusted else None,
                p=adjusted.p if adjusted else None,
                delta=delta,
                outcome=outcome,
                reason=reason,
                command=command,
            )
        )
    return rows


def _verdict(
    study: Study,
    name: str,
    claim: AnyClaim,
    sample: _Sample,
    rows: Sequence[Comparison | Effect],
    claims: Claims,
) -> Verdict:
    outcome: Outcome = "not run"
    reason, command = "", None
    stand_in = stands_in(study, claim)
    ours = low = high = reference = delta = None
    seeds: list[int] = []
    if isinstance(claim, HelpsClaim):
        row = next(row for row in rows if (row.network, row.ablation) == (claim.network, claim.ablation))
        outcome, reason, seeds = row.outcome, row.reason, row.seeds
        command = row.command if isinstance(row, Comparison) else None
        ours, low, high, delta = row.difference, row.low, row.high, row.delta
    else:
        accuracies = sample.accuracies(claim.network, METHOD)
        seeds, values = list(accuracies), list(accuracies.values())
        ours = sum(values) / len(values) if values else None
        if isinstance(claim, AccuracyClaim):
            reference, delta = claim.value, claim.delta
        else:
            reference = max(row.top1 for row in claims.previous(claim.network, claim.dataset))
        interval = statistics.t_interval(values, claims.rules.confidence) if len(values) > 1 else None
        low, high = (interval.low, interval.high) if interval else (None, None)
        if study.dataset.validation:
            reason = "validation images were scored; only the test set is judged"
        elif interval is None or len(values) < claims.rules.seeds:
            reason, command = sample.too_few(claim.network, [METHOD], len(values), claims.rules.seeds)
        elif study.dataset.name != claim.dataset:
            outcome, reason = "not comparable", f"accuracy on {study.dataset.name}, not on {claim.dataset}"
        elif study.finetune.distillation:
            outcome, reason = "not comparable", DISTILLED
        elif isinstance(claim, AccuracyClaim):
            outcome = statistics.judge_accuracy(interval, claim.value, claim.delta)
        else:
            outcome = statistics.judge_surpassing(interval, reference)
    return Verdict(
        claim=name,
        kind=claim.kind,
        network=claim.network,
        ablation=claim.ablation if isinstance(claim, HelpsClaim) else None,
        stand_in=stand_in,
        outcome=outcome,
        says=claims.rules.outcomes[outcome],
        seeds=seeds,
        ours=ours,
        low=low,
        high=high,
        reference=reference,
        delta=delta,
        reason=reason,
        command=command,
    )


def _size(results: Path, study: Study, run: Run) -> int | None:
    record = records.read_record(records.run_folder(results, study, run))
    key = "bytes_float" if run.variant == FULL_PRECISION else "bytes_one_bit"
    return int(record.layers[-1][key]) if record and record.layers else None


def _accuracies(study: Study, results: Path, sample: _Sample, claims: Claims) -> list[Accuracy]:
    rows = []
    for network in study.networks:
        for variant in [FULL_PRECISION, METHOD, *study.ablations]:
            found = sample.accuracies(network, variant)
            if not found:
                continue
            values, best = list(found.values()), sample.accuracies(network, variant, "best")
            top5 = [value for value in sample.accuracies(network, variant, "top5").values() if not isnan(value)]
            interval = statistics.t_interval(values, claims.rules.confidence) if len(values) > 1 else None
            rows.append(
                Accuracy(
                    network=network,
                    variant=variant,
                    seeds=list(found),
                    mean=sum(values) / len(values),
                    low=interval.low if interval else None,
                    high=interval.high if interval else None,
                    top5=sum(top5) / len(top5) if top5 else None,
                    best=sum(best.values()) / len(best),
                    bytes=_size(results, study, Run(network=network, variant=variant, seed=next(iter(found)))),
                )
            )
    return rows


def _rounded(value: Any) -> Any:
    """Floats to 6 decimals: what is written is the same on machines whose last bits differ."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value


def judge(study: Study, results: Path, claims: Claims) -> StudyVerdicts:
    """All that the study's finished runs say about the claims; runs that are missing or stale take no part."""
    frame = runs_frame(study, results)
    sample = _Sample(study, frame)
    done = {run: record for run, _, record, _ in done_records(study, results) if record is not None}
    family = effects(study, done, claims)
    comparisons = _compare(study, sample, claims) if family is None else []
    not_run = [
        {
            "run": f"{row['network']}/{row['variant']}/seed{row['seed']}",
            "reason": row["reason"],
            "command": row["command"],
        }
        for row in frame[frame["status"] != "done"].to_dict("records")
    ]
    content = StudyVerdicts(
        study=study.study,
        title=study.title,
        stand_in=study.stand_in,
        dataset=study.dataset.name,
        scored="validation" if study.dataset.validation else "test",
        networks=list(study.networks),
        runs_asked=len(frame),
        runs_done=len(sample.done),
        not_run=not_run,
        verdicts=[
            _verdict(study, name, claim, sample, family or comparisons, claims)
            for name, claim in claims.of_networks(study)
        ],
        comparisons=comparisons,
        accuracies=_accuracies(study, results, sample, claims),
        **({} if family is None else {"family": family}),
    )
    return StudyVerdicts.model_validate(_rounded(content.model_dump(exclude_unset=True)))


def read_verdicts(path: Path) -> StudyVerdicts | None:
    """The content of a verdicts.json; None where there is none; UserError where it is damaged."""
    remedy = f"make it anew with: {command('aggregate', path.parent.name)}"
    found = read_model(path, StudyVerdicts, remedy) if path.exists() else None
    if found and found.study != path.parent.name:
        raise UserError(f"{path}: study: found '{found.study}'; allowed: '{path.parent.name}', its folder's; {remedy}")
    return found


def known_studies() -> list[Study]:
    """The studies below studies/, the selected one as params.yaml has it; the paper's own before stand-ins."""
    found = {study.study: study for path in sorted(Path("studies").glob("*.yaml")) for study in [load_study(path)]}
    if Path("params.yaml").exists():
        selected = load_study(Path("params.yaml"))
        found[selected.study] = selected
    return sorted(found.values(), key=lambda study: (study.stand_in is not None, study.study))


def in_words(verdict: Verdict) -> str:
    """The numbers behind a verdict, or why there are none, as one phrase."""
    if verdict.outcome == "not run" or verdict.ours is None or verdict.low is None or verdict.high is None:
        return verdict.reason
    unit, sign = ("points", "+") if verdict.kind == "helps" else ("%", "")
    phrase = f"{verdict.ours:{sign}.2f} {unit} [{verdict.low:{sign}.2f}, {verdict.high:{sign}.2f}]"
    if verdict.outcome == "not comparable":
        return f"{phrase}, {verdict.reason}"
    against = {"accuracy": "paper", "surpasses": "best printed"}.get(verdict.kind)
    return f"{phrase}, {against} {verdict.reference:g} %" if against else phrase


def why_not_run(study: str, own: Verdict | None, known: Collection[str]) -> tuple[str, str | None]:
    """Why a claim that names `study` has no verdict, and the one command that makes the whole study."""
    if study not in known:
        return f"study {study} is not among studies/", None
    command = f"trained-binarization select {study} && snakemake --cores all"
    return (own.reason if own else f"study {study} has no runs"), command


def verify(results: Path, claims_path: Path) -> tuple[list[str], int]:
    """(one line a claim and stand-in, then the count; exit status): 0 reached, 1 contradicted, 3 nothing verified.

    Judges the records as they are now; stand-ins are printed and count neither way. UserError where the evidence is not
    what results/SHA256SUMS lists.
    """
    require_sums(results)
    claims = load_claims(claims_path)
    judged = [judge(study, results, claims) for study in known_studies()]
    lines, said, stand_ins = [], [], []
    for name in claims.claims:
        own = None
        for one in judged:
            for verdict in (verdict for verdict in one.verdicts if verdict.claim == name):
                if verdict.stand_in is None:
                    own = verdict
                elif verdict.outcome != "not run":
                    stand_ins.append(f"stand-in {one.study}: {name}: {verdict.outcome}: {in_words(verdict)}")
        if own is not None and own.outcome != "not run":
            lines.append(f"{name}: {own.outcome}: {in_words(own)}")
            said.append(own.says)
        else:
            reason, command = why_not_run(claims.claims[name].study, own, [one.study for one in judged])
            lines.append(f"{name}: not run: {reason}" + (f"; make it with: {command}" if command else ""))
    status = 1 if "contradicted" in said else 0 if "reached" in said else 3
    counted = Counter([*said, *["not run"] * (len(claims.claims) - len(said))])
    others = "".join(f", {n} {what}" for what, n in counted.items() if n and what != "reached")
    end = f"{counted['reached']} of {len(claims.claims)} claims reached{others} (stand-ins do not count)"
    return [one_line(line) for line in (*lines, *stand_ins, end)], status
