"""The inference benchmark: what it writes on a narrow network, and that the committed result holds together."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers import REPOSITORY, command
from trained_binarization.evidence.tables import inference_table
from trained_binarization.files import sha256

COMMITTED = REPOSITORY / "results" / "benchmarks" / "inference.json"
OURS = "OpenVINO, 1 bit (ours)"


def check(result: dict[str, Any]) -> None:
    """What holds between the numbers of a result."""
    rows = result["measured"]
    assert {(row["threads"], row["batch"]) for row in rows} >= {(1, 1), (1, 32)}
    for row in rows:
        ms, slower = row["milliseconds"], row["times_ours"]
        assert 0 < ms["5 %"] <= ms["median"] <= ms["95 %"]
        assert row["images_per_second"] == pytest.approx(1e3 * row["batch"] / ms["median"])
        assert slower["least"] <= slower["median"] <= slower["most"]
        (ours,) = [o for o in rows if (o["engine"], o["threads"], o["batch"]) == (OURS, row["threads"], row["batch"])]
        assert ours["file_bytes"] <= row["file_bytes"]
        if row is ours:
            assert slower == {"median": 1, "least": 1, "most": 1}
        assert row["peak_memory_bytes"] > 10e6


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler: g++ is not here")
def test_every_engine_is_checked_and_timed(work: Path) -> None:
    for name in ("openvino", "onnxruntime", "onnxscript", "nncf"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    assert command("deploy", "--network", "vgg_small", folder=work).status == 0
    outcome = command("benchmark", "inference", "--params", "params.yaml", "--rounds", "1", folder=work)
    assert outcome.status == 0, outcome.err
    folder = work / "results" / "benchmarks"
    result = json.loads((folder / "inference.json").read_text(encoding="utf-8"))
    check(result)
    assert (result["study"], result["rounds"]) == ("small", 1)
    engines = {row["engine"] for row in result["measured"]}
    assert engines >= {"PyTorch, eager", "PyTorch, compiled", "ONNX Runtime", "OpenVINO", "OpenVINO, int8", OURS}
    assert all(engine in outcome.out for engine in engines)
    assert (folder / "inference.svg").is_file()
    assert (folder / "inference.png").is_file()


def test_a_model_that_computes_something_else_is_not_timed(work: Path) -> None:
    pytest.importorskip("nncf", reason="nncf is not installed")
    assert command("deploy", "--network", "vgg_small", folder=work).status == 0
    # The second variant's network in the model's place, same shapes, other weights; and a proof that names it.
    model = work / "results" / "small" / "deploy" / "vgg_small" / "vgg_small"
    arguments = ("--network", "vgg_small", "--seed", "0", "--variant", "signed_activations", "--to", model)
    assert command("export", *arguments, folder=work).status == 0
    proof = json.loads(model.with_name("deploy.json").read_text(encoding="utf-8"))
    proof["files"] = {name: sha256(model.with_name(name)) for name in proof["files"]}
    model.with_name("deploy.json").write_text(json.dumps(proof), encoding="utf-8")
    outcome = command("benchmark", "inference", "--params", "params.yaml", "--rounds", "1", folder=work)
    assert outcome.status == 2
    assert f"{OURS}: found" in outcome.err
    assert not (work / "results" / "benchmarks" / "inference.json").exists()


def test_the_committed_result_holds_together() -> None:
    result = json.loads(COMMITTED.read_text(encoding="utf-8"))
    check(result)
    model = REPOSITORY / "results" / result["study"] / "deploy" / result["network"] / f"{result['network']}.bin"
    assert result["model_sha256"] == sha256(model)
    table = inference_table(result)
    assert len(table.rows) == len(result["measured"])
    assert table.markdown() in (REPOSITORY / "results" / "report.md").read_text(encoding="utf-8")
