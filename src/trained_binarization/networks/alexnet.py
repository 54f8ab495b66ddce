"""AlexNet with BatchNorm (HWGQ, LQ-Nets): one column, no groups, no LRN, no dropout."""

from torch import Tensor, nn
from torch.nn import functional as F

from trained_binarization.binarization.method import Method
from trained_binarization.networks.blocks import activated_conv


class AlexNet(nn.Module):
    """(N, 3, S, S) float images -> (N, classes) logits; S is 227 in the paper's setting.

    conv1 11x11/4 > pool > BN > Q > conv2 5x5 > pool > BN > Q > conv3 > BN > Q > conv4 > BN > Q > conv5 > pool > BN >
    Q > fc6 > BN > Q > fc7 > BN > ReLU > FC. Pools are 3x3/2. fc6 and fc7 are convolutions over the whole map and over a
    single place: the same products as linear layers. First convolution and classifier are full precision.
    """

    def __init__(self, method: Method | None, width: float = 1.0, image_size: int = 227, classes: int = 1000) -> None:
        super().__init__()
        a, b, c, d = (max(1, round(channels * width)) for channels in (96, 256, 384, 4096))
        size = (image_size - 11) // 4 + 1
        for _ in range(3):
            size = (size - 3) // 2 + 1
        if size < 1:
            raise ValueError(f"image_size: found {image_size} pixels; allowed: at least 67")
        self.conv1 = nn.Conv2d(3, a, 11, stride=4, bias=False)
        self.bn1 = nn.BatchNorm2d(a)
        self.conv2 = activated_conv(a, b, 5, method, padding=2)
        self.bn2 = nn.BatchNorm2d(b)
        self.conv3 = activated_conv(b, c, 3, method, padding=1)
        self.bn3 = nn.BatchNorm2d(c)
        self.conv4 = activated_conv(c, c, 3, method, padding=1)
        self.bn4 = nn.BatchNorm2d(c)
        self.conv5 = activated_conv(c, b, 3, method, padding=1)
        self.bn5 = nn.BatchNorm2d(b)
        self.fc6 = activated_conv(b, d, size, method)
        self.bn6 = nn.BatchNorm2d(d)
        self.fc7 = activated_conv(d, d, 1, method)
        self.bn7 = nn.BatchNorm2d(d)
        self.classifier = nn.Linear(d, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch."""
        x = self.bn1(F.max_pool2d(self.conv1(x), 3, 2))
        x = self.bn2(F.max_pool2d(self.conv2(x), 3, 2))
        x = self.bn3(self.conv3(x))
        x = self.bn4(self.conv4(x))
        x = self.bn5(F.max_pool2d(self.conv5(x), 3, 2))
        x = self.bn7(self.fc7(self.bn6(self.fc6(x))))
        return self.classifier(F.relu(x).flatten(1))
