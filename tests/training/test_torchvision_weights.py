"""torchvision's ResNet-18 in our layers: the same logits in its order; our order starts from it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18
from trained import trainer

from helpers import merged, write_params
from trained_binarization.errors import UserError
from trained_binarization.networks.resnet18 import ResNet18
from trained_binarization.records import fingerprint
from trained_binarization.settings import read_yaml
from trained_binarization.study import FULL_PRECISION, METHOD, Run, load_study
from trained_binarization.training import torchvision_weights
from trained_binarization.training.torchvision_weights import convolutions, estimate_statistics, fetch, mapped, norms


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """torchvision's network with random weights, and BatchNorms as a training leaves them."""
    torch.manual_seed(0)
    network = resnet18()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.2, 1.5)
            nn.init.normal_(layer.bias)
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return network.eval()


class TorchvisionsOrder(ResNet18):
    """Our convolutions (each with its ReLU before it), classifier and BatchNorms, put in torchvision's order."""

    def forward(self, x: Tensor) -> Tensor:
        places = {before: self.get_submodule(after) for before, after in norms().items()}
        x = F.max_pool2d(F.relu(places["bn1"](self.conv1(x))), 3, 2, padding=1)
        for name, block in zip(torchvision_weights.BLOCKS, self.blocks, strict=True):
            shortcut = x if block.downsample is None else block.downsample_bn(block.downsample(x))
            x = places[f"{name}.bn2"](block.conv2(places[f"{name}.bn1"](block.conv1(x))))
            x = F.relu(x + shortcut)
        return self.classifier(x.mean((2, 3)))


def test_in_torchvisions_order_our_layers_give_torchvisions_logits(theirs: nn.Module) -> None:
    ours = TorchvisionsOrder(None).eval()
    names = convolutions() | norms()
    renamed = {}
    for key, tensor in theirs.state_dict().items():
        module, _, leaf = key.rpartition(".")
        renamed[f"{names[module]}.{leaf}"] = tensor
    ours.load_state_dict(renamed)
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_every_tensor_of_ours_is_mapped_and_the_branch_keeps_its_strength(theirs: nn.Module) -> None:
    ours = ResNet18(None).eval()
    ours.load_state_dict(mapped(theirs.state_dict()))  # strict: none is missing, none left over
    block, x = theirs.layer2[1], torch.randn(2, 128, 12, 12)
    with torch.no_grad():
        branch = block.bn2(block.conv2(F.relu(x)))
        found = ours.blocks[3].conv2(x)
    constant = (branch - found).mean((0, 2, 3), keepdim=True)
    torch.testing.assert_close(found + constant, branch, rtol=1e-4, atol=1e-4)


def test_the_order_of_the_stems_pool_does_not_matter(theirs: nn.Module) -> None:
    # BN > ReLU > pool equals pool > BN > ReLU where the BatchNorm's weights are positive.
    ours = ResNet18(None).eval()
    ours.load_state_dict(mapped(theirs.state_dict()))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        stem = theirs.maxpool(F.relu(theirs.bn1(theirs.conv1(x))))
        found = F.relu(ours.blocks[0].bn1(F.max_pool2d(ours.conv1(x), 3, 2, padding=1)))
    torch.testing.assert_close(found, stem)


def test_statistics_are_those_of_the_training_batches() -> None:
    one = trainer(None, 128)
    network = one.network
    estimate_statistics(network, one.images, 32)
    inputs: list[Tensor] = []
    network.bn1.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))  # type: ignore[union-attr]
    with torch.no_grad():
        for batch in one.images.batches(0, 0, 32, 0, slice(None)):
            network(one.images.load(*batch)[0])
    means = torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0)
    other = trainer(None, 128)
    estimate_statistics(other.network, other.images, 32)
    torch.testing.assert_close(other.network.bn1.running_mean, means)  # type: ignore[union-attr]
    assert other.network.bn1.momentum == 0.1  # type: ignore[union-attr]


def test_weights_that_cannot_be_fetched_or_are_others_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(UserError, match=r"^https://\S+/resnet18-f37072fd\.pth: cannot be fetched: .*by hand$"):
        fetch()
    path = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    torch.save({}, path)
    with pytest.raises(UserError, match=rf"^{path}: SHA-256: found \w+; allowed: f37072fd, that of the file at https"):
        fetch()


def unreachable(*_: object, **__: object) -> None:
    raise OSError("no route to host")


def test_the_key_is_allowed_only_where_it_means_something(tmp_path: Path) -> None:
    studies = Path(__file__).resolve().parents[2] / "studies"
    changes = {"pretrain": {"from": "torchvision"}}
    path = write_params(tmp_path / "params.yaml", merged(read_yaml(studies / "quick.yaml"), changes))
    with pytest.raises(UserError, match=r"pretrain\.from: found 'torchvision'; allowed: only with resnet18 alone"):
        load_study(path)
    settings = merged(read_yaml(studies / "imagenet.yaml"), changes | {"networks": ["resnet18"]})
    del settings["architecture"]["alexnet"], settings["dataset"]["image_size"]["alexnet"]
    study = load_study(write_params(path, settings))
    full_precision, method = (Run(network="resnet18", variant=variant, seed=0) for variant in (FULL_PRECISION, METHOD))
    assert (study.start(full_precision), study.start(method)) == ("torchvision", None)
    settings["pretrain"]["from"] = None
    without = load_study(write_params(path, settings))
    for run in (full_precision, method):  # the method's, by its parent
        assert fingerprint(study, run, "data") != fingerprint(without, run, "data")
