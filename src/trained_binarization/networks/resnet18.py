"""ResNet-18 (He et al. 2016) with a shortcut around every two convolutions, in the order BN > Q > convolution."""

from torch import Tensor, nn
from torch.nn import functional as F

from trained_binarization.binarization.method import Method
from trained_binarization.networks.blocks import activated_conv


class Block(nn.Module):
    """x -> conv2(Q(BN(conv1(Q(BN(x)))))) + shortcut.

    Where size or channels change, the shortcut is a 1x1 convolution of BN(x), then BatchNorm; `binary_downsample` puts
    Q before it and makes its weights binary (HWGQ, LQ-Nets), else it is full precision (Bi-Real and most tables).
    """

    def __init__(self, before: int, after: int, stride: int, method: Method | None, binary_downsample: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = activated_conv(before, after, 3, method, stride=stride, padding=1)
        self.bn2 = nn.BatchNorm2d(after)
        self.conv2 = activated_conv(after, after, 3, method, padding=1)
        self.downsample: nn.Module | None = None
        if stride != 1 or before != after:
            self.downsample = (
                activated_conv(before, after, 1, method, stride=stride)
                if binary_downsample
                else nn.Conv2d(before, after, 1, stride, bias=False)
            )
            self.downsample_bn = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output on real values."""
        normalised = self.bn1(x)
        shortcut = x if self.downsample is None else self.downsample_bn(self.downsample(normalised))
        return self.conv2(self.bn2(self.conv1(normalised))) + shortcut


class ResNet18(nn.Module):
    """(N, 3, S, S) float images -> (N, classes) logits; S is 224 in the paper's setting.

    conv1 7x7/2 > pool 3x3/2 > eight blocks > BN > ReLU > mean over places > FC. First convolution and classifier are
    full precision. The order is our reading (docs/method.md); it has as many parameters as torchvision's.
    """

    def __init__(
        self,
        method: Method | None,
        width: float = 1.0,
        image_size: int = 224,
        classes: int = 1000,
        binary_downsample: bool = False,
    ) -> None:
        super().__init__()
        a, b, c, d = (max(1, round(channels * width)) for channels in (64, 128, 256, 512))
        self.conv1 = nn.Conv2d(3, a, 7, stride=2, padding=3, bias=False)
        shapes = [(a, a, 1), (a, a, 1), (a, b, 2), (b, b, 1), (b, c, 2), (c, c, 1), (c, d, 2), (d, d, 1)]
        self.blocks = nn.Sequential(*(Block(*shape, method, binary_downsample) for shape in shapes))
        self.bn = nn.BatchNorm2d(d)
        self.classifier = nn.Linear(d, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch."""
        x = self.blocks(F.max_pool2d(self.conv1(x), 3, 2, padding=1))
        return self.classifier(F.relu(self.bn(x)).mean((2, 3)))
