"""Weights on the disk: what is kept as signs computes the same, and gives the recorded accuracy again."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trained_binarization.binarization.method import Method
from trained_binarization.cli import main
from trained_binarization.errors import UserError
from trained_binarization.networks import build
from trained_binarization.training.weights import load_state, load_weights, save_weights, signs_of, state_sha256

ROOT = Path(__file__).resolve().parents[2]


def network(method: Method) -> torch.nn.Module:
    return build("vgg_small", method, 16, 10, width=0.25)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"weight_scaling_granularity": "channel"},
        {"weight_scaling": "none", "activation_scaling": "none"},
        {"activation_values": "plus_minus_one"},
    ],
    ids=str,
)
def test_signs_compute_what_the_latent_weights_did(changes: dict[str, str], tmp_path: Path) -> None:
    method = Method(**changes)
    torch.manual_seed(0)
    trained, loaded = network(method), network(method)
    save_weights(trained, tmp_path / "signs", signs=True)
    load_weights(loaded, tmp_path / "signs")
    images = torch.randn(8, 3, 16, 16)
    assert not torch.equal(loaded.conv2.weight, trained.conv2.weight)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(images), trained.eval()(images))


def test_signs_of_full_width_are_small(tmp_path: Path) -> None:
    save_weights(build("vgg_small", Method(), 32, 10), tmp_path / "signs", signs=True)
    assert (tmp_path / "signs").stat().st_size < 1_000_000


def test_the_hash_of_signs_does_not_depend_on_how_a_file_packs_them(tmp_path: Path) -> None:
    save_weights(network(Method()), tmp_path / "other", signs=True)
    torch.manual_seed(0)
    one = network(Method())
    save_weights(one, tmp_path / "packed", signs=True)
    save_file(signs_of(one), tmp_path / "plain")  # an int8 each, as before signs were packed
    of_packed, of_plain, of_other = (state_sha256(load_state(tmp_path / n)) for n in ("packed", "plain", "other"))
    assert of_packed == of_plain == state_sha256(signs_of(one))
    assert of_packed != of_other


def test_analytic_factors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="weight_scaling: found 'analytic'"):
        save_weights(network(Method(weight_scaling="analytic")), tmp_path / "signs", signs=True)
    assert not list(tmp_path.iterdir())


def test_the_kept_network_of_cifar10_gives_its_recorded_accuracy(
    cifar10_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim's own evidence: trained on a GPU, scored again here, on all 10,000 images. Over a minute."""
    params = tmp_path / "params.yaml"
    text = (ROOT / "studies/cifar10.yaml").read_text(encoding="utf-8")
    text = text.replace("root: data/raw", f"root: {cifar10_root}").replace("threads: 1 ", "threads: 2 ")
    params.write_text(text, encoding="utf-8")
    results = str(ROOT / "results")
    call = ["evaluate", "--params", str(params), "--results", results, "--network", "vgg_small", "--seed", "0"]
    monkeypatch.setattr("sys.argv", ["trained-binarization", *call])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 0, said
    assert "on the 10000 test images" in said.out
