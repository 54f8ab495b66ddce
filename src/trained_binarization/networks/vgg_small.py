"""VGG-Small: 128C3-128C3-MP2-256C3-256C3-MP2-512C3-512C3-MP2-FC10 (LQ-Nets, HWGQ, IR-Net), no convolution bias."""

from torch import Tensor, nn
from torch.nn import functional as F

from trained_binarization.binarization.method import Method
from trained_binarization.networks.blocks import activated_conv


class VGGSmall(nn.Module):
    """(N, 3, S, S) float images -> (N, classes) logits.

    conv1 > BN > Q > conv2 > pool > BN > Q > conv3 > BN > Q > conv4 > pool > BN > Q > conv5 > BN > Q > conv6 > pool >
    BN > ReLU > FC. Pooling comes before BN, on real values. First convolution and classifier are full precision.
    """

    def __init__(self, method: Method | None, width: float = 1.0, image_size: int = 32, classes: int = 10) -> None:
        super().__init__()
        a, b, c = (max(1, round(channels * width)) for channels in (128, 256, 512))
        self.conv1 = nn.Conv2d(3, a, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(a)
        self.conv2 = activated_conv(a, a, 3, method, padding=1)
        self.bn2 = nn.BatchNorm2d(a)
        self.conv3 = activated_conv(a, b, 3, method, padding=1)
        self.bn3 = nn.BatchNorm2d(b)
        self.conv4 = activated_conv(b, b, 3, method, padding=1)
        self.bn4 = nn.BatchNorm2d(b)
        self.conv5 = activated_conv(b, c, 3, method, padding=1)
        self.bn5 = nn.BatchNorm2d(c)
        self.conv6 = activated_conv(c, c, 3, method, padding=1)
        self.bn6 = nn.BatchNorm2d(c)
        self.classifier = nn.Linear(c * (image_size // 8) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch."""
        x = self.bn1(self.conv1(x))
        x = self.bn2(F.max_pool2d(self.conv2(x), 2))
        x = self.bn3(self.conv3(x))
        x = self.bn4(F.max_pool2d(self.conv4(x), 2))
        x = self.bn5(self.conv5(x))
        x = self.bn6(F.max_pool2d(self.conv6(x), 2))
        return self.classifier(F.relu(x).flatten(1))
