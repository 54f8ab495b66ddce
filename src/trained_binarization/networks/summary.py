"""What a network costs, layer by layer: shapes, parameters, multiply-accumulates and bytes."""

from typing import Any

import torch
from torch import Tensor, nn

from trained_binarization.binarization.layers import BinaryConv2d, BinaryLinear


def layer_costs(network: nn.Module, image_size: int) -> list[dict[str, Any]]:
    """One row a layer with parameters, for one image of (3, image_size, image_size), and a last row of totals.

    Scaling factors are not counted as parameters. MACs: products of convolutions and linear layers. Bytes: 4 a
    parameter in float; in one bit, 1/8 a binary weight and 4 any other parameter.
    """
    rows: list[dict[str, Any]] = []

    def measure(name: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            binary = isinstance(module, BinaryConv2d | BinaryLinear)
            own = [p for key, p in module.named_parameters() if key.split(".")[-1] != "alpha"]
            parameters = sum(p.numel() for p in own)
            weight = own[0]
            macs = weight[0].numel() * output[0].numel() if weight.dim() > 1 else 0
            binary_parameters = parameters if binary else 0
            rows.append(
                {
                    "layer": name,
                    "type": type(module).__name__,
                    "output_shape": "x".join(map(str, output.shape[1:])),
                    "parameters": parameters,
                    "binary_parameters": binary_parameters,
                    "macs": macs,
                    "binary_macs": macs if binary else 0,
                    "bytes_float": 4 * parameters,
                    "bytes_one_bit": 4 * (parameters - binary_parameters) + binary_parameters // 8,
                }
            )

        return hook

    network = network.to("meta").eval()
    handles = [
        module.register_forward_hook(measure(name, module))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d | BinaryConv2d | BinaryLinear)
    ]
    with torch.no_grad():
        network(torch.empty(1, 3, image_size, image_size, device="meta"))
    for handle in handles:
        handle.remove()
    total: dict[str, Any] = {"layer": "total", "type": "", "output_shape": ""}
    for key in list(rows[0])[3:]:
        total[key] = sum(row[key] for row in rows)
    return [*rows, total]
