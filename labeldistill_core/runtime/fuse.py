# SPDX-License-Identifier: Apache-2.0
"""A trained network as inference wants it: fewer operations, the same result.

Shapes: as in `network.center_head`.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from labeldistill_core.network.center_head import BOX_MAPS, CenterHead, TaskMaps
from labeldistill_core.network.student import Student


def fuse(student: Student, dtype: torch.dtype) -> Student:
    """Fold norms into convolutions, join the head's branches, store weights in `dtype`.

    What is not a convolution or a matrix product keeps its type; run it under autocast.

    Args:
        student: stays as it is.
        dtype: of the convolutions' and matrix products' weights.

    Returns:
        A copy in evaluation mode that can neither be trained nor saved.
    """
    student = copy.deepcopy(student).eval()
    fold_norms(student)
    crop_kernels(student.depth_net, student.config.feature_size[0])
    student.head = FusedHead(student.head)  # type: ignore[assignment]  # the same call
    for module in student.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            module.to(dtype)
    # of two layouts with the same result, the faster one for convolutions
    return student.to(memory_format=torch.channels_last)


def fold_norms(network: nn.Module) -> None:
    """Put each batch norm into the convolution that stands before it among its siblings."""
    for module in network.modules():
        before: tuple[str, nn.Module] = ("", module)
        for name, child in list(module.named_children()):
            conv = before[1]
            if isinstance(child, nn.BatchNorm2d) and isinstance(
                conv, (nn.Conv2d, nn.ConvTranspose2d)
            ):
                transposed = isinstance(conv, nn.ConvTranspose2d)
                setattr(module, before[0], fuse_conv_bn_eval(conv, child, transposed))
                setattr(module, name, nn.Identity())
            before = (name, child)


def crop_kernels(network: nn.Module, height: int) -> None:
    """Leave out the outer rows of dilated 3x3 kernels that reach beyond maps of this height."""
    for module in network.modules():
        for name, conv in module.named_children():
            if not isinstance(conv, nn.Conv2d) or conv.kernel_size != (3, 3):
                continue
            dilation = conv.dilation[0]
            if dilation >= height and conv.padding == (dilation, dilation):
                cropped = _with_weights(conv, conv.weight[:, :, 1:2], _bias(conv))
                cropped.padding, cropped.dilation = (0, dilation), (1, dilation)
                setattr(module, name, cropped)


class FusedHead(nn.Module):
    """A `CenterHead` with two convolutions a task instead of twelve.

    The first ones of a task's branches look at the same map, so their filters stand in one
    convolution; the second ones stand in one with zeros between the branches.
    """

    def __init__(self, head: CenterHead) -> None:
        """From a head whose norms were folded."""
        super().__init__()
        self.shared = head.shared
        self.sizes = [[branch[-1].out_channels for branch in task.values()] for task in head.tasks]  # type: ignore[operator]
        self.tasks = nn.ModuleList(
            nn.Sequential(
                _stacked([branch[0] for branch in task.values()]),  # type: ignore[operator]
                nn.ReLU(inplace=True),
                _block_diagonal([branch[-1] for branch in task.values()]),  # type: ignore[operator]
            )
            for task in head.tasks
        )

    def forward(self, features: Tensor) -> tuple[TaskMaps, ...]:
        """See `CenterHead`."""
        shared = self.shared(features)
        names = (*BOX_MAPS, "heatmap")
        return tuple(
            TaskMaps(**dict(zip(names, task(shared).float().split(sizes, dim=1), strict=True)))
            for task, sizes in zip(self.tasks, self.sizes, strict=True)
        )


def _stacked(convs: list[nn.Conv2d]) -> nn.Conv2d:
    """Convolutions of one input as one, outputs stacked."""
    return _with_weights(
        convs[0],
        torch.cat([conv.weight for conv in convs]),
        torch.cat([_bias(conv) for conv in convs]),
    )


def _block_diagonal(convs: list[nn.Conv2d]) -> nn.Conv2d:
    """Convolutions of stacked inputs as one, outputs stacked."""
    outs, ins = [c.out_channels for c in convs], [c.in_channels for c in convs]
    weight = convs[0].weight.new_zeros(sum(outs), sum(ins), *convs[0].kernel_size)
    for index, conv in enumerate(convs):
        row, column = sum(outs[:index]), sum(ins[:index])
        weight[row : row + outs[index], column : column + ins[index]] = conv.weight.detach()
    return _with_weights(convs[0], weight, torch.cat([_bias(conv) for conv in convs]))


def _with_weights(like: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    conv = nn.Conv2d(
        weight.shape[1],
        weight.shape[0],
        tuple(weight.shape[2:]),  # type: ignore[arg-type]
        padding=like.padding,  # type: ignore[arg-type]
        device=weight.device,
        dtype=weight.dtype,
    )
    with torch.no_grad():
        conv.weight.copy_(weight)
        conv.bias.copy_(bias)  # type: ignore[union-attr]
    return conv.eval()


def _bias(conv: nn.Conv2d) -> Tensor:
    return conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias
