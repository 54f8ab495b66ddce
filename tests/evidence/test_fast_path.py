"""The committed proof that the fast path trains the same networks as the plain one."""

import pytest

from helpers import REPOSITORY
from trained_binarization.errors import UserError
from trained_binarization.evidence.fast_path import differences, table
from trained_binarization.evidence.statistics import t_interval
from trained_binarization.study import FULL_PRECISION, METHOD, load_study

RESULTS = REPOSITORY / "results"
PLAIN_RESULTS = RESULTS / "benchmarks" / "fast-path"
FAST, PLAIN = load_study(REPOSITORY / "studies" / "cifar10-cpu.yaml"), load_study(PLAIN_RESULTS / "params.yaml")


def test_the_plain_study_is_plain_and_else_the_same() -> None:
    assert (PLAIN.compute.autocast, PLAIN.compute.channels_last, PLAIN.compute.compile) == ("none", False, False)
    assert (FAST.compute.autocast, FAST.compute.channels_last, FAST.compute.compile) == ("bfloat16", True, True)
    for key in ("dataset", "architecture", "pretrain", "finetune", "method"):
        assert getattr(PLAIN, key) == getattr(FAST, key), key


def test_both_paths_reach_the_same_accuracy_within_the_seeds_interval() -> None:
    found = differences(FAST, PLAIN, RESULTS, PLAIN_RESULTS)
    assert list(found) == [FULL_PRECISION, METHOD]
    for pairs in found.values():
        assert [seed for seed, _, _ in pairs] == [0, 1, 2]
        interval = t_interval([fast - plain for _, fast, plain in pairs], 0.95)
        assert interval.low <= 0 <= interval.high
        assert abs(interval.mean) < 0.5


def test_the_committed_table_is_what_the_records_give() -> None:
    committed = (PLAIN_RESULTS / "table.md").read_text(encoding="utf-8")
    assert committed == table(FAST, PLAIN, RESULTS, PLAIN_RESULTS)


def test_records_of_other_settings_are_refused() -> None:
    longer = FAST.model_copy(update={"pretrain": FAST.pretrain.model_copy(update={"epochs": 9})})
    with pytest.raises(UserError, match=r"the run is stale: .*; make it with"):
        differences(longer, PLAIN, RESULTS, PLAIN_RESULTS)
