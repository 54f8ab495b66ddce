"""`benchmark precision`: a layer by itself is as exact as its precision, under every instruction set."""

import json
from pathlib import Path

from helpers import command, small_settings, write_params
from trained_binarization.benchmarks.precision import INSTRUCTION_SETS


def test_each_layer_is_within_rounding(tmp_path: Path) -> None:
    write_params(tmp_path / "params.yaml", small_settings())
    ended = command("benchmark", "precision", "--network", "vgg_small", folder=tmp_path)
    assert ended.status == 0, ended.err
    path = tmp_path / "results" / "benchmarks" / "precision-vgg_small-method"
    result = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert result["found"].keys() == INSTRUCTION_SETS.keys()
    for rows in result["found"].values():
        assert max(rows["none"]["layers"].values()) < 1e-3
        assert 1e-5 < max(rows["bfloat16"]["layers"].values()) < 5e-2
    assert path.with_suffix(".md").read_text(encoding="utf-8").splitlines()[4].startswith("| all | float32 |")
