"""claims.yaml: what it holds, and that a fault in it is one line that names file and key."""

import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import CLAIMS, ROOT

from helpers import write_params
from trained_binarization.errors import UserError
from trained_binarization.evidence.claims import load_claims
from trained_binarization.settings import read_yaml


def test_the_abstract_is_complete() -> None:
    claims = load_claims(CLAIMS).claims
    accuracies = {claim.network: (claim.value, claim.delta) for claim in claims.values() if claim.kind == "accuracy"}
    assert accuracies == {"vgg_small": (92.3, 0.5), "alexnet": (46.1, 0.5), "resnet18": (54.2, 0.5)}
    helps = {claim.ablation: claim.delta for claim in claims.values() if claim.kind == "helps"}
    assert helps == {"no_scaling": 0.3, "clipped_ste": 0.3, "no_l2": 0.3}
    assert [claim.network for claim in claims.values() if claim.kind == "surpasses"] == list(accuracies)


def test_previous_works_and_sizes() -> None:
    claims = load_claims(CLAIMS)
    best = {n: max(row.top1 for row in claims.published if row.previous and row.network == n) for n in claims.networks}
    assert best == {"vgg_small": 91.3, "alexnet": 44.2, "resnet18": 52.5}
    assert all(
        row.year < 2020 and (row.bits, row.structure) == ("1/1", "plain") for row in claims.published if row.previous
    )
    assert claims.networks["vgg_small"].bytes_float == 18_640_424
    assert claims.networks["vgg_small"].bytes_one_bit == 927_272


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("surprise",), 1, "surprise: unknown key"),
        (("claims", "l2_helps", "delt"), 1, "claims.l2_helps.delt: unknown key"),
        (("claims", "l2_helps", "delta"), -1.0, "claims.l2_helps.delta: found -1.0"),
        (("claims", "l2_helps", "kind"), "hopes", "claims.l2_helps"),
        (("claims", "vgg_small_accuracy", "value"), "92.3", "claims.vgg_small_accuracy.value: found '92.3'"),
        (("claims", "vgg_small_accuracy", "network"), "vgg", "claims.vgg_small_accuracy.network: found 'vgg'"),
        (("rules", "outcomes", "helps"), None, "rules.outcomes.helps: found None"),
        (("published", 0, "source"), "hearsay", "published.0.source: found 'hearsay'"),
    ],
)
def test_a_fault_is_one_line(tmp_path: Path, path: tuple[str | int, ...], value: object, told: str) -> None:
    content = read_yaml(CLAIMS)
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file = tmp_path / "claims.yaml"
    write_params(file, content)
    with pytest.raises(UserError) as error:
        load_claims(file)
    assert str(error.value).startswith(f"{file}: {told}")
    assert "\n" not in str(error.value)
    assert "params.yaml" not in str(error.value)


def test_a_missing_outcome_is_told(tmp_path: Path) -> None:
    content = read_yaml(CLAIMS)
    del content["rules"]["outcomes"]["hurts"]
    write_params(tmp_path / "claims.yaml", content)
    with pytest.raises(UserError, match=r"rules\.outcomes: found no 'hurts'"):
        load_claims(tmp_path / "claims.yaml")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_claims(tmp_path / "claims.yaml")


def test_evidence_imports_no_torch() -> None:
    names = [path.stem for path in (ROOT / "src" / "trained_binarization" / "evidence").glob("*.py")]
    modules = ", ".join(f"trained_binarization.evidence.{name}" for name in names if name != "__init__")
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
