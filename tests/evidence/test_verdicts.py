"""Verdicts: from records only, stale ones and stand-ins kept out, exit statuses."""

import json
import shutil
from pathlib import Path

import pytest
from synthetic import CLAIMS, write_data, write_results, write_run

from helpers import write_params
from trained_binarization import records
from trained_binarization.errors import UserError
from trained_binarization.evidence.aggregate import aggregate
from trained_binarization.evidence.claims import load_claims
from trained_binarization.evidence.frames import history_frame, runs_frame
from trained_binarization.evidence.verdicts import StudyVerdicts, judge, read_verdicts, verify
from trained_binarization.study import METHOD, Study


def judged(study: Study, results: Path) -> StudyVerdicts:
    return judge(study, results, load_claims(CLAIMS))


def outcomes(found: StudyVerdicts) -> dict[str, str]:
    return {verdict.claim: verdict.outcome for verdict in found.verdicts}


def save_study(study: Study, house: Path) -> None:
    write_params(house / "studies" / f"{study.study}.yaml", study.model_dump())


def write_with(study: Study, results: Path, accuracies: dict[str, list[float]]) -> None:
    """Every run; the named variants with these accuracies by seed (percent), others made up."""
    write_data(study, results)
    for run in study.runs():
        write_run(study, run, results, accuracies[run.variant][run.seed] if run.variant in accuracies else None)


def test_the_papers_own_setting_fills_the_claims(cifar10: Study, tmp_path: Path) -> None:
    write_results(cifar10, tmp_path)
    found = judged(cifar10, tmp_path)
    assert all(verdict.stand_in is None for verdict in found.verdicts)
    told = outcomes(found)
    assert told["vgg_small_accuracy"] == "reproduced"
    assert told["tight_derivative_helps"] == "helps"
    assert told["vgg_small_surpasses"] == "surpasses"
    assert "alexnet_accuracy" not in told
    assert found.runs_done == found.runs_asked == len(list(cifar10.runs()))


def test_stand_ins_never_fill_a_cell(quick: Study, tmp_path: Path) -> None:
    write_results(quick, tmp_path)
    found = judged(quick, tmp_path)
    assert all(verdict.stand_in == quick.stand_in for verdict in found.verdicts)
    assert outcomes(found)["vgg_small_accuracy"] == "not comparable"
    assert outcomes(found)["tight_derivative_helps"] == "helps"


def test_a_distilled_network_never_stands_for_the_papers(cifar10: Study, tmp_path: Path) -> None:
    """Not even where the study says that it stands in with nothing; and its accuracy is no verdict on the claim."""
    content = cifar10.model_dump() | {"ablations": [], "variants": {}}
    content["finetune"] = content["finetune"] | {"distillation": {"share": 0.9, "temperature": 4.0}}
    study = Study.model_validate(content)
    write_results(study, tmp_path)
    found = judged(study, tmp_path)
    assert all(verdict.stand_in and "distilled" in verdict.stand_in for verdict in found.verdicts)
    assert outcomes(found) == {"vgg_small_accuracy": "not comparable", "vgg_small_surpasses": "not comparable"}


@pytest.mark.parametrize(
    "change",
    [
        {"study": "cifar10-more"},
        {"stand_in": "half the channels"},
        {"architecture": {"vgg_small": {"width": 0.5}}},
        {"dataset": "digits"},
    ],
)
def test_another_setting_is_a_stand_in(cifar10: Study, tmp_path: Path, change: dict[str, object]) -> None:
    content = cifar10.model_dump()
    if change.get("dataset"):
        change = {"dataset": content["dataset"] | {"name": change["dataset"]}}
    study = Study.model_validate(content | change)
    write_results(study, tmp_path)
    assert all(verdict.stand_in for verdict in judged(study, tmp_path).verdicts)


def test_validation_accuracies_judge_nothing(cifar10: Study, tmp_path: Path) -> None:
    content = cifar10.model_dump()
    content["dataset"]["validation"] = 5000
    study = Study.model_validate(content)
    write_results(study, tmp_path)
    found = judged(study, tmp_path)
    assert set(outcomes(found).values()) == {"not run"}
    assert {row.outcome for row in found.comparisons} == {"not run"}
    assert "validation" in found.verdicts[0].reason


def test_a_stale_record_is_never_aggregated(cifar10: Study, tmp_path: Path) -> None:
    write_results(cifar10, tmp_path)
    run = cifar10.find("vgg_small", METHOD, 0)
    path = records.run_folder(tmp_path, cifar10, run) / "record.json"
    asked = json.loads(path.read_text("utf-8"))["fingerprint"]
    longer = cifar10.model_copy(update={"finetune": cifar10.finetune.model_copy(update={"weight_decay": 0.1})})
    write_run(longer, run, tmp_path, accuracy=12.0)
    found_there = json.loads(path.read_text("utf-8"))["fingerprint"]
    found = judged(cifar10, tmp_path)
    accuracy = next(verdict for verdict in found.verdicts if verdict.claim == "vgg_small_accuracy")
    assert accuracy.seeds == [1, 2, 3, 4]
    assert accuracy.ours is not None
    assert accuracy.ours > 90
    assert all(0 not in row.seeds for row in found.comparisons)
    assert found.not_run == [
        {
            "run": str(run),
            "reason": f"its record is of other settings (fingerprint {found_there[:8]}, not {asked[:8]})",
            "command": cifar10.command(run),
        }
    ]
    frame = runs_frame(cifar10, tmp_path)
    stale = frame[frame["status"] == "stale"]
    assert stale["accuracy"].isna().all()
    assert len(stale) == 1
    history = history_frame(cifar10, tmp_path)
    assert history[(history["variant"] == METHOD) & (history["seed"] == 0)].empty


def test_too_few_seeds_say_which_command(quick: Study, tmp_path: Path) -> None:
    write_data(quick, tmp_path)
    for run in quick.runs():
        if run.seed < 2:
            write_run(quick, run, tmp_path)
    found = judged(quick, tmp_path)
    assert set(outcomes(found).values()) == {"not run"}
    helps = next(verdict for verdict in found.verdicts if verdict.claim == "l2_helps")
    assert helps.seeds == [0, 1]
    assert helps.reason.startswith("2 of at least 3 seeds done; vgg_small/")
    assert helps.command == "trained-binarization finetune --params studies/quick.yaml --network vgg_small --seed 2"


def test_no_records_at_all(quick: Study, tmp_path: Path) -> None:
    found = judged(quick, tmp_path)
    assert found.runs_done == 0
    assert {one["reason"] for one in found.not_run} == {"the data set is not prepared"}
    assert history_frame(quick, tmp_path).empty


def test_equal_accuracies_give_degenerate_intervals(cifar10: Study, tmp_path: Path) -> None:
    write_with(cifar10, tmp_path, {METHOD: [92.3] * 5, "no_l2": [92.3] * 5})
    found = judged(cifar10, tmp_path)
    accuracy = next(verdict for verdict in found.verdicts if verdict.claim == "vgg_small_accuracy")
    assert (accuracy.low, accuracy.high, accuracy.outcome) == (92.3, 92.3, "reproduced")
    helps = next(verdict for verdict in found.verdicts if verdict.claim == "l2_helps")
    assert (helps.low, helps.high, helps.outcome) == (0.0, 0.0, "no effect larger than delta")


def test_verify_without_evidence(house: Path) -> None:
    lines, status = verify(Path("results"), Path("claims.yaml"))
    assert status == 3
    assert sum(": not run: " in line for line in lines) == 9


def test_verify_counts_no_stand_in(house: Path, quick: Study) -> None:
    write_results(quick, Path("results"))
    lines, status = verify(Path("results"), Path("claims.yaml"))
    assert status == 3
    assert any(line.startswith("stand-in quick: tight_derivative_helps: helps") for line in lines)


def test_verify_names_the_command(house: Path, cifar10: Study) -> None:
    save_study(cifar10, house)
    lines, _ = verify(Path("results"), Path("claims.yaml"))
    assert "trained-binarization select cifar10 && snakemake --cores all" in lines[0]


def _harmless(cifar10: Study) -> dict[str, list[float]]:
    method = [92.2, 92.3, 92.4, 92.5, 92.35]
    return {METHOD: method, **{name: [round(a - 1.0, 2) for a in method] for name in cifar10.ablations}}


def test_verify_reached(house: Path, cifar10: Study) -> None:
    save_study(cifar10, house)
    write_with(cifar10, Path("results"), _harmless(cifar10))
    lines, status = verify(Path("results"), Path("claims.yaml"))
    assert status == 0, lines


@pytest.mark.parametrize(
    "change",
    [
        {METHOD: [88.0, 88.1, 88.2, 88.1, 88.0]},  # not reproduced
        {"no_scaling": [93.2, 93.3, 93.4, 93.5, 93.35]},  # hurts
        {"no_l2": [92.2, 92.3, 92.4, 92.5, 92.35]},  # no effect larger than delta
    ],
)
def test_verify_contradicted(house: Path, cifar10: Study, change: dict[str, list[float]]) -> None:
    save_study(cifar10, house)
    write_with(cifar10, Path("results"), _harmless(cifar10) | change)
    assert verify(Path("results"), Path("claims.yaml"))[1] == 1


def test_verdicts_file_is_what_is_judged(quick: Study, tmp_path: Path) -> None:
    write_results(quick, tmp_path)
    aggregate(quick, tmp_path, CLAIMS)
    path = tmp_path / "quick" / "verdicts.json"
    assert read_verdicts(path) == judged(quick, tmp_path)
    path.write_text("{}", "utf-8")
    with pytest.raises(UserError, match=r"verdicts\.json: .*damaged"):
        read_verdicts(path)
    shutil.rmtree(tmp_path / "quick")
    assert read_verdicts(path) is None
