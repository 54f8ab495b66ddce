"""Agreement: the rule's arithmetic and rates of error, and what the commands say."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from synthetic import quick_study, small_study, write_results, write_run

from helpers import REPOSITORY, command
from trained_binarization import records
from trained_binarization.errors import UserError
from trained_binarization.evidence import agreement
from trained_binarization.evidence.agreement import (
    CONFIDENCE,
    MARGIN,
    Arm,
    Evidence,
    RunResult,
    compare,
    difference_interval,
    judge_difference,
)
from trained_binarization.evidence.comparison import agree, in_words
from trained_binarization.study import LOCAL, Study, load_study

ARMS = 7


def evidence(accuracies: Sequence[Sequence[float]], side: str = "", views: bool = False, **changes: object) -> Evidence:
    """A side with these accuracies, arm by arm; weights differ between sides of other names."""
    arms = [
        Arm(
            network="vgg_small",
            variant=f"arm{i}",
            settings={"training": {"epochs": 14}},
            runs=[
                RunResult(seed=k, accuracy=a, accuracy_views=a if views else None, weights_sha256=f"{side}{i}{k}")
                for k, a in enumerate(own)
            ],
        )
        for i, own in enumerate(accuracies)
    ]
    content = {"study": "quick", "arms": arms, "verdicts": {}, "data_checksum": "0" * 64}
    return Evidence(**(content | {"devices": ["a CPU"], "packages": [], "commits": []} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(("ours", "theirs"), [([98, 97.5, 99], [98.2, 98.4, 97.9, 99.1]), ([90, 91], [95, 95.5])])
def test_the_interval_is_students(ours: list[float], theirs: list[float]) -> None:
    expected = stats.ttest_ind(ours, theirs).confidence_interval(0.99)
    assert difference_interval(ours, theirs, 0.99) == pytest.approx((expected.low, expected.high), abs=1e-8)


def test_one_run_on_a_side_is_enough_but_not_on_both() -> None:
    theirs = [98.0, 98.4, 98.8, 98.4]
    half = stats.t.ppf(0.975, 3) * np.std(theirs, ddof=1) * np.sqrt(1 + 1 / 4)
    assert difference_interval([99.0], theirs, 0.95) == pytest.approx((0.6 - half, 0.6 + half), abs=1e-8)
    assert difference_interval([99.0], [98.0], 0.95) is None
    found = compare(evidence([[99.0]], "a"), evidence([[98.0]], "b"))
    assert (found.verdict, found.arms[0].low) == ("undecided", None)


@pytest.mark.parametrize(
    ("low", "high", "finding"),
    [
        (-MARGIN, MARGIN, "agrees"),
        (0.1, 0.4, "agrees"),  # a difference, but too small to count
        (0.1, MARGIN + 0.1, "differs"),
        (-9.0, -3.0, "differs"),
        (-0.1, MARGIN + 0.1, "undecided"),
    ],
)
def test_the_rule(low: float, high: float, finding: str) -> None:
    assert judge_difference(low, high) == finding


def simulated(
    shift: float, deviation: float = 0.25, repeats: int = 1500, spread: float | None = None
) -> dict[str, float]:
    """How often each verdict is given: three seeds an arm against ten, one arm `shift` points off."""
    random = np.random.default_rng(7)
    counted = dict.fromkeys(("identical", "agrees", "undecided", "differs"), 0)
    for _ in range(repeats):
        means = np.zeros((ARMS, 1))
        means[0] = shift
        deviations = np.full((ARMS, 1), deviation)
        if spread is not None:
            deviations[-1] = spread
        ours = 90 + means + deviations * random.standard_normal((ARMS, 3))
        theirs = 90 + deviations * random.standard_normal((ARMS, 10))
        counted[compare(evidence(ours.tolist(), "a"), evidence(theirs.tolist(), "b")).verdict] += 1
    return {verdict: number / repeats for verdict, number in counted.items()}


def test_the_same_experiment_differs_in_at_most_five_percent() -> None:
    assert simulated(0.0)["differs"] <= 1 - CONFIDENCE
    assert simulated(0.0, spread=1.0)["differs"] <= 1 - CONFIDENCE + 0.01  # arms need not have one deviation


def test_a_difference_of_the_margin_agrees_in_at_most_five_percent() -> None:
    assert simulated(MARGIN)["agrees"] <= 1 - CONFIDENCE


def test_three_seeds_are_enough_to_say_it() -> None:
    same, other = simulated(0.0), simulated(3.0)
    assert same["agrees"] >= 0.9
    assert other["differs"] >= 0.9


def test_equal_weights_are_identical_whatever_the_seeds_are_worth() -> None:
    side = evidence([[98.0, 97.0], [50.0, 99.0]])
    found = compare(side, side)
    assert found.verdict == "identical"
    assert [(arm.equal, arm.shared) for arm in found.arms] == [(2, 2), (2, 2)]
    more = compare(side, evidence([[98.0, 97.0, 97.5], [50.0, 99.0, 80.0]]))
    assert [(arm.equal, arm.shared) for arm in more.arms] == [(2, 2), (2, 2)]
    assert more.verdict != "identical"


def test_what_else_differs_is_told() -> None:
    ours, theirs = evidence([[98.0, 97.0]] * 2, "a"), evidence([[98.0, 97.0]], "b", data_checksum="1" * 64)
    theirs.arms[0].settings["training"]["epochs"] = 2
    notes = compare(ours, theirs).notes
    assert "other settings: training.epochs: 14 here, 2 there" in notes
    assert "other data: checksum 00000000 here, 11111111 there" in notes
    assert "only here: vgg_small/arm1" in notes


def test_the_measure_is_ten_views_where_every_record_has_them() -> None:
    with_views, without = evidence([[98.0, 97.0]], "a", views=True), evidence([[98.0, 97.0]], "b")
    assert compare(with_views, with_views).measure == "accuracy by ten views"
    with_views.arms[0].runs[0].accuracy_views = 90.0
    assert compare(with_views, with_views).arms[0].ours == {0: 90.0, 1: 97.0}
    assert compare(with_views, without).measure == "accuracy"
    assert compare(with_views, without).arms[0].ours == {0: 98.0, 1: 97.0}


def test_nothing_in_common_is_an_error() -> None:
    theirs = evidence([[98.0]])
    theirs.arms[0].variant = "another"
    with pytest.raises(UserError, match=r"no arm in common; the other side's arms: vgg_small/another"):
        compare(evidence([[98.0]]), theirs)


@pytest.fixture
def quick_house(house: Path) -> Path:
    """A finished study with a reference made of the same runs."""
    write_results(quick_study(), house / "results")
    for arguments in (("aggregate",), ("reference",), ("agreement",), ("report",)):
        outcome = command(*arguments, folder=house)
        assert outcome.status == 0, outcome.err
    return house


def test_a_reference_of_the_same_runs_is_identical(quick_house: Path) -> None:
    content = json.loads((quick_house / "results/quick/agreement/agreement.json").read_text())
    assert content["verdict"] == "identical"
    assert all(ours == theirs for _, ours, theirs in content["verdicts"])
    for kind in ("md", "html"):
        text = (quick_house / f"results/quick/report.{kind}").read_text("utf-8")
        assert "identical to the reference; 21 of 21 runs of the same seed are equal bit for bit" in text
        assert text.index("Agreement with the reference") < text.index("What each ingredient does")
    outcome = command("status", folder=quick_house)
    assert outcome.status == 0
    assert "21 of 21 are done" in outcome.out
    assert "identical to the reference" in outcome.out
    assert (quick_house / "results/quick/report.html").as_uri() in outcome.out


def shifted(house: Path, points: float) -> None:
    """Move the accuracies of one arm of the reference."""
    path = house / "reference" / "quick.json"
    content = json.loads(path.read_text())
    arm = next(arm for arm in content["arms"] if arm["variant"] == "no_scaling")
    for run in arm["runs"]:
        run["accuracy"] -= points
        run["weights_sha256"] = "0" * 64
    path.write_text(json.dumps(content))


def test_an_arm_that_differs_is_named_and_ends_in_status_1(quick_house: Path) -> None:
    shifted(quick_house, 5.0)
    outcome = command("agreement", folder=quick_house)  # the stage succeeds whatever it finds
    assert outcome.status == 0
    assert "differs from the reference in no_scaling (+5.00 points)" in outcome.out
    for arguments in (("compare", "results", "reference"), ("status",)):
        outcome = command(*arguments, folder=quick_house)
        assert outcome.status == 1
        assert "differs from the reference in no_scaling" in outcome.out


def test_two_folders_of_results_and_of_other_settings(house: Path) -> None:
    """Records need not be those of today's study file: two settings are compared in the same way."""
    study, other = small_study(), small_study()
    write_results(study, house / "one")
    other = study.model_copy(update={"finetune": study.finetune.model_copy(update={"learning_rate": 1e-5})})
    write_results(other, house / "two")
    outcome = command("compare", "one", "two", "--study", "small", "--to", "beside", folder=house)
    assert outcome.status == 0, outcome.err
    assert "other settings: training.learning_rate: 0.003 here, 1e-05 there (in 6 of 7 arms)" in outcome.out
    written = {path.name for path in (house / "beside").iterdir()}
    assert written == {"agreement.json", "agreement.md", "agreement.svg", "agreement.png"}
    content = json.loads((house / "beside/agreement.json").read_text())
    assert len(content["arms"]) == ARMS


def test_two_studies_are_compared_by_their_own_folders(house: Path) -> None:
    """A committed study, and the same settings trained anew under another name."""
    study = small_study()
    for one in (study, study.model_copy(update={"study": "again"})):
        write_results(one, house / "results")
    outcome = command("compare", "results/again", "results/small", folder=house)
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith("again: identical to the reference; ")
    outcome = command("compare", "results/again", "results", "--study", "small", folder=house)
    assert outcome.out.startswith("again: identical to the reference; ")
    outcome = command("compare", "results/again", "results/no-such", folder=house)
    assert outcome.status == 2


def test_one_arm_of_two_settings_is_refused(house: Path) -> None:
    study = small_study()
    write_results(study, house / "one")
    other = study.model_copy(update={"finetune": study.finetune.model_copy(update={"learning_rate": 1e-5})})
    write_run(other, study.find("vgg_small", "method", 1), house / "one")
    outcome = command("compare", "one", "one", "--study", "small", folder=house)
    assert outcome.status == 2
    assert "vgg_small/method are of 2 different settings or data" in outcome.err


@pytest.mark.parametrize(
    ("break_it", "fragment"),
    [
        (lambda house: (house / "reference/quick.json").write_text("{}"), "damaged or foreign content"),
        (lambda house: (house / "reference/quick.json").unlink(), "found no records of study quick"),
        (lambda house: changed_history(house), "its SHA-256 is not the one in record.json"),
    ],
)
def test_damaged_sides_are_one_line(break_it: object, fragment: str, quick_house: Path) -> None:
    break_it(quick_house)  # type: ignore[operator]
    outcome = command("compare", "results", "reference", folder=quick_house)
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1
    assert fragment in outcome.err


def changed_history(house: Path) -> None:
    """Change a number in a history."""
    path = next((house / "results/quick/runs").glob("*/method/seed0/history.csv"))
    path.write_text(path.read_text().replace("0.05", "0.06", 1) + "\n")


def test_without_a_reference_the_stage_says_so(house: Path, quick: Study) -> None:
    write_results(quick, house / "results")
    found = agree(quick, house / "results", house / "reference")
    assert found.verdict == "no reference"
    assert "no reference evidence" in in_words(found)
    assert [path.name for path in (house / "results/quick/agreement").iterdir()] == ["agreement.json"]


def test_a_reference_needs_every_run(house: Path, quick: Study) -> None:
    write_results(quick, house / "results")
    (records.run_folder(house / "results", quick, next(quick.runs())) / "record.json").unlink()
    outcome = command("reference", folder=house)
    assert outcome.status == 2
    assert "the run is missing" in outcome.err
    assert not (house / "reference").exists()


def test_the_reference_in_git_is_of_the_study_that_is_trained() -> None:
    """Ten seeds an arm of the same settings, data and arms: only then do the two sides ask the same question."""
    study = load_study(REPOSITORY / "studies" / f"{LOCAL}.yaml")
    found = agreement.read_evidence(REPOSITORY / "reference", LOCAL)
    settings = {f"{run.network}/{run.variant}": records.settings_of(study, run) for run in study.runs()}
    assert {arm.name: arm.settings for arm in found.arms} == settings
    assert all([run.seed for run in arm.runs] == list(range(10)) for arm in found.arms)
    assert len(found.commits) == len(found.devices) == 1
    seeds = load_study(REPOSITORY / "reference" / f"{LOCAL}.yaml")
    assert seeds.model_copy(update={"seeds": study.seeds}) == study
