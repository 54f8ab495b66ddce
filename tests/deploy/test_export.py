"""The exported model, against the framework: sums one by one, bits, predictions, files, commands."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import REPOSITORY, command, write_params
from trained_binarization.binarization.layers import BinaryConv2d, binary_layers
from trained_binarization.binarization.method import Method
from trained_binarization.datasets.augment import channel_statistics
from trained_binarization.datasets.digits import read_digits
from trained_binarization.deploy.fold import Threshold, batch_norm, behind, of_sums, positive
from trained_binarization.deploy.stage import deploy, export
from trained_binarization.files import sha256, write_json
from trained_binarization.networks import build
from trained_binarization.networks.alexnet import AlexNet
from trained_binarization.networks.resnet18 import ResNet18
from trained_binarization.records import run_folder
from trained_binarization.study import Study, load_study

openvino = pytest.importorskip("openvino", reason="openvino is not installed")

from trained_binarization.deploy import proof  # noqa: E402
from trained_binarization.deploy.export import OpenVINO, export_network  # noqa: E402
from trained_binarization.deploy.model import About, ExportedModel, read_model, save_model, settings  # noqa: E402


@pytest.mark.parametrize("channels", [1, 16, 33, 64, 96, 100, 512])  # OpenVINO's own are right for multiples of 32
@pytest.mark.parametrize("shape", [(1, 1, 0), (3, 1, 1), (3, 2, 1), (5, 1, 2), (5, 2, 2), (3, 1, 0)], ids=str)
def test_every_sum_is_equal(channels: int, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(channels)
    kernel, stride, padding = shape
    layer = BinaryConv2d(channels, 48, kernel, stride, padding)
    bits = torch.rand(2, channels, 11, 11) > 0.3
    expected = proof.sums_of(layer, bits).numpy()
    assert (proof.exported_sums(layer, bits) == expected).all()
    assert np.ptp(expected) > 0


def test_all_products_equal_and_all_opposite() -> None:
    layer = BinaryConv2d(512, 32, 3)
    for weight, expected in ((0.5, 4608), (-0.5, -4608)):
        with torch.no_grad():
            layer.weight.fill_(weight)
        assert (proof.exported_sums(layer, torch.ones(1, 512, 4, 4)) == expected).all()


@pytest.mark.parametrize("pooled", [False, True], ids=["fused", "pooled"])
@pytest.mark.parametrize("channels", [20, 64])
def test_a_threshold_between_two_convolutions_is_exact(channels: int, pooled: bool) -> None:
    """Also where the plugin fuses it into the convolution: without pooling, and without channels that are added."""
    torch.manual_seed(channels)
    first, second = (BinaryConv2d(channels, channels, 3, padding=1) for _ in range(2))
    norm = torch.nn.BatchNorm2d(channels).eval()
    bits = torch.rand(2, channels, 12, 12) > 0.4
    with torch.no_grad():
        norm.weight.normal_()
        norm.weight[3] = 0
        norm.bias.normal_()
        sums = proof.sums_of(first, bits)
        norm.running_mean.copy_(first(bits.float()).mean((0, 2, 3)))
        # What a program makes of it: the sums' affine map, BatchNorm's, and where it is positive.
        bit = positive(behind(batch_norm(norm), of_sums(first)), whole=True)
        sums = torch.nn.functional.max_pool2d(sums, 2) if pooled else sums
        inside = (sums > bit.threshold[:, None, None]) != bit.inverted[:, None, None]
        expected = proof.sums_of(second, inside)
    steps, x = OpenVINO(), openvino.opset13.parameter(list(bits.shape), np.float32)
    half = Threshold(torch.full((channels,), 0.5).double(), torch.zeros(channels, dtype=torch.bool))
    between = steps.sums(steps.bits(x, half), first)
    between = steps.max_pool(between, 2, 2, 0) if pooled else between
    model = openvino.Model([steps.sums(steps.bits(between, bit), second)], [x], "two")
    compiled = openvino.Core().compile_model(model, "CPU", settings(1))
    assert (compiled(bits.float().numpy())[0] == expected.numpy()).all()
    kinds = [node.get_rt_info()["layerType"].astype(str) for node in compiled.get_runtime_model().get_ops()]
    assert kinds.count("FakeQuantize") == (2 if pooled or channels % 32 else 1)


IMAGE_SIZES = {"vgg_small": 16, "alexnet": 67, "resnet18": 48}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "vgg_small": {"width": 0.25},
    "alexnet": {"width": 0.125},  # channels that are no multiples of 32
    "resnet18": {"width": 0.5, "binary_downsample": False},
    "resnet18 binary downsample": {"width": 0.5, "binary_downsample": True},
}


@pytest.mark.parametrize("values", ["zero_one", "plus_minus_one"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_networks_with_negative_gammas_predict_the_same(name: str, values: Any, tmp_path: Path) -> None:
    torch.manual_seed(3)
    method = Method(activation_values=values, weight_scaling_granularity="channel")
    digits, size = read_digits(), IMAGE_SIZES[name.split()[0]]
    mean, std = channel_statistics(digits.train_images)
    images, labels = digits.test_images[:60], digits.test_labels[:60]
    large = torch.nn.functional.interpolate(images.permute(0, 3, 1, 2).float(), size=(size, size), mode="bilinear")
    images = large.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    network = build(name.split()[0], method, size, 10, **ARCHITECTURES[name])
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.normal_()
                module.bias.normal_()
                module.momentum = None  # the mean over what follows
        for _ in range(3):  # statistics of real images
            network((images - mean).div(std).permute(0, 3, 1, 2))
    network.eval()
    about = About("test", "run", digits.classes, size, digits.checksum, "0" * 64, 10.0)
    save_model(export_network(network, mean, std, size), about, tmp_path / "model")
    exported = read_model(tmp_path / "model.xml")
    assert exported.about == about
    found = proof.compare(network, exported, images, labels, mean, std, 1)
    assert [one.differing for one in found.layers] == [0] * len(list(binary_layers(network)))
    assert len(found.differences) <= 2  # a random network's classes lie close together
    assert found.differences == [] or all(one.distance < proof.TIE for one in found.differences), found.differences


@pytest.mark.parametrize(
    ("network", "size"),
    [(AlexNet(Method()), 227), (ResNet18(Method(), binary_downsample=True), 224)],
    ids=["alexnet", "resnet18"],
)
def test_every_binary_convolution_of_the_imagenet_networks_at_full_width(network: torch.nn.Module, size: int) -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8)
    mean, std = torch.full((3,), 127.0), torch.full((3,), 60.0)
    network(torch.randn(2, 3, size, size))
    found = proof.compare_layers(network.eval(), images, mean, std)
    assert len(found) == len(list(binary_layers(network)))
    assert [one.differing for one in found] == [0] * len(found)


def test_a_wrong_model_is_a_fault(trained: Path, tmp_path: Path) -> None:
    study = load_study(trained / "params.yaml")
    export(study, study.find("vgg_small", "method", 0), trained / "results", tmp_path / "model")
    digits = read_digits()
    mean, std = channel_statistics(digits.train_images)
    other = build("vgg_small", study.method, 16, 10, **study.architecture["vgg_small"].model_dump()).eval()
    exported = read_model(tmp_path / "model.xml")
    found = proof.compare(other, exported, digits.test_images, digits.test_labels, mean, std, 1)
    faults = found.faults()
    assert any("predictions differ; allowed" in fault for fault in faults)
    assert any("parts in unknown at inf from a tie" in fault for fault in faults)  # no bit explains it


def test_a_flipped_bit_is_a_fault_of_its_layer() -> None:
    layer = proof.LayerProof("conv4", 100, 1)
    one = proof.Proof([layer], 10_000, 90.0, 90.0, [])
    assert one.faults() == ["conv4: 1 of 100 sums differ"]
    tie = proof.Difference(3, 1, 2, "conv2", 1, 1e-6)
    assert dataclasses.replace(one, layers=[], differences=[tie] * 5).faults() == []
    assert len(dataclasses.replace(one, layers=[], differences=[tie] * 6).faults()) == 1


# ------------------------------------------------------------------------------------------------- stage and commands


def of(folder: Path) -> tuple[Study, Path]:
    return load_study(folder / "params.yaml"), folder / "results" / "small" / "deploy" / "vgg_small"


def test_deploy_leaves_a_proven_model_and_its_card(work: Path) -> None:
    outcome = command("deploy", "--network", "vgg_small", folder=work)
    assert outcome.status == 0, outcome.err
    study, folder = of(work)
    found = json.loads((folder / "deploy.json").read_text(encoding="utf-8"))
    record = json.loads(
        (run_folder(work / "results", study, study.find("vgg_small", "method", 0)) / "record.json").read_text()
    )
    assert found["status"] == "exported"
    assert found["weights_sha256"] == record["weights_sha256"]
    assert found["proof"]["accuracy_framework"] == pytest.approx(record["last"]["accuracy"])
    assert all(layer["differing"] == 0 for layer in found["proof"]["layers"])
    assert found["files"] == {name: sha256(folder / name) for name in ("vgg_small.bin", "vgg_small.xml")}
    # One bit a binary weight: 286,000 of them in 36 kB.
    assert found["bytes"]["vgg_small.bin"] < 80_000
    card = (folder / "card.md").read_text(encoding="utf-8")
    for fact in ("Licence of the data", found["files"]["vgg_small.bin"], "one seed of 1", record["commit"][:12]):
        assert fact in card
    again = command("deploy", "--network", "vgg_small", folder=work)
    assert "already there, nothing exported" in again.out


def test_what_is_missing_or_damaged_is_made_again(work: Path) -> None:
    command("deploy", "--network", "vgg_small", folder=work)
    _, folder = of(work)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "vgg_small.bin").write_bytes(b"damaged")
    (folder / "card.md").unlink()
    outcome = command("deploy", "--network", "vgg_small", folder=work)
    assert "exported" in outcome.out
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (folder / "card.md").unlink()
    assert "already there" in command("deploy", "--network", "vgg_small", folder=work).out
    assert (folder / "card.md").read_bytes() == before["card.md"]


def test_a_model_whose_proof_fails_replaces_nothing(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command("deploy", "--network", "vgg_small", folder=work)
    _, folder = of(work)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(proof.Proof, "faults", lambda self: ["conv4: 1 of 100 sums differ"])
    outcome = command("deploy", "--network", "vgg_small", "--again", folder=work)
    assert outcome.status == 2
    assert "computes something else: conv4: 1 of 100 sums differ" in outcome.err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_without_openvino_commands_say_so(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for arguments in (("predict", "m.xml", "a.png"), ("evaluate", "m.xml"), ("benchmark", "inference")):
        outcome = command(*arguments, folder=work)
        assert (outcome.status, outcome.err) == (2, "error: openvino is not installed: pip install -e '.[deploy]'\n")


def test_two_exports_are_equal_byte_for_byte(trained: Path, tmp_path: Path) -> None:
    study = load_study(trained / "params.yaml")
    run = study.find("vgg_small", "signed_activations", 0)
    first, second = (export(study, run, trained / "results", tmp_path / name / "m") for name in ("a", "b"))
    assert first == second


def test_the_model_alone_gives_its_records_accuracy_again(work: Path) -> None:
    command("deploy", "--network", "vgg_small", folder=work)
    shutil.rmtree(work / "results" / "small" / "runs")
    outcome = command("evaluate", "results/small/deploy/vgg_small/vgg_small.xml", folder=work)
    assert outcome.status == 0, outcome.err
    assert "on the 500 test images; the record says" in outcome.out
    assert "agrees" in outcome.out


def test_predict_names_the_digits(work: Path, tmp_path: Path) -> None:
    command("export", "--network", "vgg_small", "--seed", "0", "--to", "model.xml", folder=work)
    digits = read_digits()
    names = [tmp_path / f"{number}.png" for number in range(20)]
    for number, name in enumerate(names):
        Image.fromarray(digits.test_images[number].numpy()).save(name)
    outcome = command("predict", "model.xml", *names, folder=work)
    assert outcome.status == 0, outcome.err
    lines = outcome.out.splitlines()
    expected = read_model(work / "model.xml").logits(digits.test_images[:20].numpy(), 1).argmax(1).tolist()
    assert [line.split(": ")[1].split(",")[0] for line in lines] == [str(label) for label in expected]
    assert len(set(expected)) > 3
    assert all(line.endswith(" ms") and " %, " in line for line in lines)
    Image.new("L", (300, 200)).save(tmp_path / "large.jpeg")  # any size, any mode
    assert command("predict", "model.xml", tmp_path / "large.jpeg", folder=work).status == 0


def test_predict_classifies_what_a_viewer_shows(work: Path, tmp_path: Path) -> None:
    command("export", "--network", "vgg_small", "--seed", "0", "--to", "model.xml", folder=work)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, shown standing
    digits = read_digits().test_images[:6].numpy()
    for number, pixels in enumerate(digits):
        plain = Image.fromarray(pixels)
        grey = pixels[..., 0].astype(np.uint16)
        kinds = {
            "plain": plain,
            "turned": plain.transpose(Image.Transpose.ROTATE_90),
            "grey16": Image.fromarray(grey * 257),
            "palette": plain.quantize(256),
            "opaque": plain.convert("RGBA"),
            # Dark where it is opaque, on white: as transparent pictures are made.
            "alpha": Image.merge("LA", [Image.new("L", plain.size), Image.fromarray((255 - grey).astype(np.uint8))]),
        }
        for kind, image in kinds.items():
            image.save(tmp_path / f"{kind}{number}.png", **({"exif": exif} if kind == "turned" else {}))
        names = [tmp_path / f"{kind}{number}.png" for kind in kinds]
        outcome = command("predict", "model.xml", *names, folder=work)
        assert outcome.status == 0, outcome.err
        answers = {line.split(": ")[1].rpartition(", ")[0] for line in outcome.out.splitlines()}
        assert len(answers) == 1, outcome.out


def test_predict_refuses_in_one_line_what_no_viewer_shows_or_only_another_program_opens(
    work: Path, tmp_path: Path
) -> None:
    command("export", "--network", "vgg_small", "--seed", "0", "--to", "model.xml", folder=work)
    (tmp_path / "x.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    (tmp_path / "x.avif").write_bytes(b"\0\0\0 ftypavif" + bytes(50))
    Image.new("LA", (16, 16), (255, 0)).save(tmp_path / "white.png")  # of a white picture: nothing to be seen
    Image.new("1", (20_000, 8_000)).save(tmp_path / "large.png")
    for name in ("x.eps", "x.avif", "white.png", "large.png"):
        outcome = command("predict", "model.xml", tmp_path / name, folder=work)
        assert (outcome.status, outcome.out) == (2, "")
        assert outcome.err.startswith(f"error: {tmp_path / name}: cannot be read as an image: found ")
        assert len(outcome.err.splitlines()) == 1


def test_what_is_missing_is_written_down(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, folder = of(work)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "openvino is not installed" in deploy(study, "vgg_small", work / "results")
    assert "not run: openvino is not installed" in (folder / "card.md").read_text(encoding="utf-8")
    monkeypatch.undo()
    for weights in (work / "results").rglob("weights.safetensors"):
        weights.unlink()
    assert "make them with: trained-binarization finetune" in deploy(study, "vgg_small", work / "results")


def test_a_good_proof_is_never_replaced_by_not_run(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command("deploy", "--network", "vgg_small", folder=work)
    study, folder = of(work)
    monkeypatch.chdir(work)  # the card names the record's path as the command was told it
    for weights in Path("results").rglob("weights.safetensors"):
        weights.unlink()  # as in a clone
    proven = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "vgg_small.bin").write_bytes(b"converted")
    (folder / "card.md").unlink()
    outcome = command("deploy", "--network", "vgg_small", folder=work)
    assert outcome.status == 0, outcome.err
    assert outcome.out.count("\n") == 1
    assert "kept, a proof of this record (its model is missing or damaged); nothing exported: " in outcome.out
    (folder / "vgg_small.bin").write_bytes(proven["vgg_small.bin"])
    outcome = command("deploy", "--network", "vgg_small", "--again", folder=work)
    assert "kept, a proof of this record (its model is there); nothing exported: " in outcome.out
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "openvino is not installed" in deploy(study, "vgg_small", Path("results"), again=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == proven
    said = json.loads((folder / "deploy.json").read_text())
    write_json(folder / "deploy.json", said | {"weights_sha256": "0" * 64})  # a proof of other weights is no proof
    assert ": not run: " in deploy(study, "vgg_small", Path("results"))
    assert "not run: " in (folder / "card.md").read_text()


def test_a_damaged_proof_is_told_and_made_anew_by_the_command_that_the_message_names(work: Path) -> None:
    command("deploy", "--network", "vgg_small", folder=work)
    _, folder = of(work)
    proven = (folder / "deploy.json").read_bytes()
    said = json.loads(proven)
    for content in (b"", b"[]", proven[:100], json.dumps(said | {"files": {"../card.md": "0" * 64}}).encode()):
        (folder / "deploy.json").write_bytes(content)
        outcome = command("deploy", "--network", "vgg_small", folder=work)
        assert outcome.status == 2
        assert outcome.err.startswith("error: results/small/deploy/vgg_small/deploy.json: ")
        assert outcome.err.endswith(
            "; make it anew with: trained-binarization deploy --study small --network vgg_small --again\n"
        )
        assert outcome.err.count("\n") == 1
        assert command("deploy", "--network", "vgg_small", "--again", folder=work).status == 0
        assert (folder / "deploy.json").read_bytes() == proven


def test_predict_shows_a_file_in_one_line_whatever_its_name(work: Path) -> None:
    command("export", "--network", "vgg_small", "--seed", "0", "--to", "model.xml", folder=work)
    Image.new("RGB", (16, 16)).save(work / "a\nb\x1b[2J.png")
    outcome = command("predict", "model.xml", "a\nb\x1b[2J.png", folder=work)
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith("a\\nb\\x1b[2J.png: ")
    assert outcome.out.count("\n") == 1


def test_bad_arguments_are_told(work: Path) -> None:
    command("export", "--network", "vgg_small", "--seed", "0", "--to", "model", folder=work)
    (work / "other.xml").write_text("<net/>", encoding="utf-8")
    (work / "other.bin").write_bytes(b"")
    for arguments, told in (
        (("predict", "nothing.xml", "a.png"), "nothing.xml: no such model"),
        (("predict", "params.yaml", "a.png"), "params.yaml: no such model"),
        (("predict", "other.xml", "a.png"), "other.xml: found no model of ours"),
        (("predict", "model.xml", "params.yaml"), "params.yaml: cannot be read as an image"),
        (("predict", "model.xml", "nothing.png"), "nothing.png: cannot be read: No such file"),
        (("evaluate",), "allowed: --network and --seed, or MODEL.xml"),
        (
            ("export", "--network", "vgg_small", "--seed", "0", "--variant", "full_precision", "--to", "x"),
            "a binary one",
        ),
    ):
        outcome = command(*arguments, folder=work)
        assert outcome.status == 2, arguments
        assert told in outcome.err, outcome.err
        assert len(outcome.err.splitlines()) == 1


# ---------------------------------------------------------------------------------------------------- what is committed

COMMITTED = sorted((REPOSITORY / "results").glob("*/deploy/*/deploy.json"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parts[-4])
def test_committed_models_are_those_that_were_proven(path: Path) -> None:
    found = json.loads(path.read_text(encoding="utf-8"))
    study, network = path.parts[-4], path.parts[-2]
    record = json.loads((REPOSITORY / "results" / study / "runs" / found["run"] / "record.json").read_text("utf-8"))
    assert found["weights_sha256"] == record["weights_sha256"]
    if found["status"] != "exported":
        return
    assert found["files"] == {name: sha256(path.with_name(name)) for name in (f"{network}.bin", f"{network}.xml")}
    assert found["proof"]["accuracy_exported"] == pytest.approx(record["last"]["accuracy"], abs=0.05)
    if network == "vgg_small":
        assert sum(found["bytes"].values()) <= 1_000_000
    read_model(path.with_name(f"{network}.xml"))


def test_cifar10s_model_gives_its_accuracy_again(cifar10_root: Path, tmp_path: Path) -> None:
    model = REPOSITORY / "results" / "cifar10" / "deploy" / "vgg_small" / "vgg_small.xml"
    settings = load_study(REPOSITORY / "studies" / "cifar10.yaml").model_dump()
    settings["dataset"]["root"] = str(cifar10_root)
    params = write_params(tmp_path / "params.yaml", settings)
    outcome = command("evaluate", model, "--params", params, folder=tmp_path)
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith("92.24 % on the 10000 test images; the record says 92.24 %: agrees")


def test_the_model_takes_any_number_of_images() -> None:
    model: ExportedModel = read_model(next(COMMITTED[0].parent.glob("*.xml")))
    size = model.about.image_size
    images = np.random.default_rng(0).integers(0, 256, (7, size, size, 3), dtype=np.uint8)
    together = model.logits(images, 1)
    alone = np.concatenate([model.logits(images[i : i + 1], 1) for i in range(7)])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)
