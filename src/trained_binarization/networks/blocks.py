"""What the networks are built of: Q, then a convolution, in full precision or binary from one call."""

from torch import Tensor, nn
from torch.nn import functional as F

from trained_binarization.binarization.layers import BinaryConv2d
from trained_binarization.binarization.method import Method


class ReLUConv2d(nn.Conv2d):
    """BinaryConv2d's full-precision counterpart: ReLU, then a convolution."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve relu(input)."""
        return super().forward(F.relu(input))


def activated_conv(
    in_channels: int, out_channels: int, kernel_size: int, method: Method | None, stride: int = 1, padding: int = 0
) -> nn.Module:
    """Q, then a convolution without bias; Q is ReLU and the weights are real where method is None."""
    if method is None:
        return ReLUConv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
    return BinaryConv2d(in_channels, out_channels, kernel_size, stride, padding, method=method)
