# SPDX-License-Identifier: Apache-2.0
"""A trained network as inference wants it: fewer operations, the same result.

Shapes: as in `network.center_head`.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from labeldistill_core.network.center_head import bias_of
from labeldistill_core.network.student import Student
from labeldistill_core.runtime.sparse_head import BoxBranches, PeakHead, conv_with


def fuse(student: Student, dtype: torch.dtype, peaks: bool = True) -> Student:
    """Fold norms into convolutions, leave out what has no effect, store weights in `dtype`.

    What is not a convolution or a matrix product keeps its type, as does what half precision cannot
    hold, see `DepthNet.precise`; run it under autocast.

    Args:
        student: stays as it is.
        dtype: of the convolutions' and matrix products' weights.
        peaks: compute box codes on demand, see `PeakHead`; else in every cell.

    Returns:
        A copy in evaluation mode that can neither be trained nor saved.
    """
    # A copy, since folding cannot be undone and the caller may go on training.
    student = copy.deepcopy(student).eval()
    fold_norms(student)
    # At dilation 18 on 16 rows, six of a kernel's nine places see nothing but padding.
    crop_kernels(student.depth_net, student.config.feature_size[0])
    if peaks:
        student.head = PeakHead(student.head)  # type: ignore[assignment]  # the same call
    precise = set(student.depth_net.precise())
    for module in student.modules():
        if module in precise:
            continue
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, BoxBranches)):
            module.to(dtype)
    # of two layouts with the same result, the faster one for convolutions
    return student.to(memory_format=torch.channels_last)


def fold_norms(network: nn.Module) -> None:
    """Put each batch norm into the convolution that stands before it among its siblings."""
    for module in network.modules():
        before: tuple[str, nn.Module] = ("", module)
        # Order among siblings is order of use in all modules here: a norm follows its convolution.
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
                middle = conv.weight[:, :, 1:2]
                cropped = conv_with(middle, bias_of(conv), (0, dilation), (1, dilation))
                setattr(module, name, cropped)
