# SPDX-License-Identifier: Apache-2.0
"""Sparse 3D convolution, in plain torch or by spconv.

Both use one layout of weights, (kz, ky, kx, Cin, Cout). The plain backend gathers neighbours and
multiplies, forward and backward, so it needs no atomic additions and repeats to the bit.

Shapes: V active voxels, U active voxels of the result, K places of the kernel, C channels.
Source: Submanifold sparse convolution (Graham et al., CVPR 2018); SECOND (Yan et al., 2018).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

try:
    # On the CPU its forward loses updates with more than one thread (0.3 % of the outputs wrong at
    # 2 000 voxels), and its backward wants a CUDA driver: `auto` takes it on CUDA alone.
    import spconv.pytorch as spconv
except ImportError:
    spconv = None

Triple = tuple[int, int, int]
Backend = Literal["auto", "torch", "spconv"]


def has_spconv() -> bool:
    """Whether spconv is installed."""
    return spconv is not None


@dataclass(frozen=True, eq=False)
class Rulebook:
    """Which voxel meets which through a kernel; the same for all convolutions of one resolution."""

    indices: Tensor
    """(U, 4) int64 of the result: sample, z, y, x."""
    shape: Triple
    """How many voxels there are along z, y and x."""
    sources: Tensor
    """(U, K) index of the voxel behind each place of the kernel, V where there is none."""
    targets: Tensor
    """(V, K) index of the result that a voxel adds to by each place, U where there is none."""


@dataclass(frozen=True, eq=False)
class SparseTensor:
    """Features of the active voxels of a batch."""

    features: Tensor
    """(V, C) features of the V voxels that are not empty."""
    indices: Tensor
    """(V, 4) int64: sample, z, y, x."""
    shape: Triple
    """How many voxels there are along z, y and x."""
    batch: int
    """How many samples the voxels belong to."""
    rulebooks: dict[tuple[Triple, Triple, Triple], Rulebook] = field(default_factory=dict)
    """Of the convolutions that keep the active voxels, by kernel, stride and padding."""

    def with_features(self, features: Tensor) -> SparseTensor:
        """The same voxels with other features."""
        return SparseTensor(features, self.indices, self.shape, self.batch, self.rulebooks)

    def dense(self) -> Tensor:
        """(B, C, Z, Y, X), zero where no voxel is active."""
        out = self.features.new_zeros(self.batch, *self.shape, self.features.shape[1])
        out[self.indices.unbind(1)] = self.features
        return out.permute(0, 4, 1, 2, 3)


class SparseConv3d(nn.Module):
    """3D convolution without bias over active voxels."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Triple = (3, 3, 3),
        stride: Triple = (1, 1, 1),
        padding: Triple = (1, 1, 1),
        submanifold: bool = False,
        backend: Backend = "auto",
    ) -> None:
        """Random weights.

        Args:
            in_channels: of the input.
            out_channels: of the result.
            kernel: size along z, y, x.
            stride: of the kernel along z, y, x.
            padding: of the volume along z, y, x.
            submanifold: keep the active voxels as they are, rather than let them spread.
            backend: `auto` takes spconv on CUDA when it is installed, and torch elsewhere.
        """
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.submanifold, self.backend = submanifold, backend
        self.weight = nn.Parameter(torch.empty(*kernel, in_channels, out_channels))
        # He et al., ICCV 2015, equation 10: the fan-in counts all places of the kernel.
        nn.init.normal_(self.weight, std=math.sqrt(2 / (in_channels * math.prod(kernel))))

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Convolve."""
        cuda = x.features.is_cuda and spconv is not None
        if self.backend == "spconv" or (self.backend == "auto" and cuda):
            return _convolve_by_spconv(self, x)
        book = self._rulebook(x)
        device = x.features.device.type
        dtype = x.features.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):  # backward has none either
            features: Tensor = _GatherConvolution.apply(
                x.features.to(dtype), self.weight.flatten(0, 2).to(dtype), book
            )
        if self.submanifold:
            return x.with_features(features)
        return SparseTensor(features, book.indices, book.shape, x.batch)

    def _rulebook(self, x: SparseTensor) -> Rulebook:
        key = (self.kernel, self.stride, self.padding)
        # All convolutions of one resolution meet the same neighbours, so these are searched once.
        if self.submanifold and key in x.rulebooks:
            return x.rulebooks[key]
        book = build_rulebook(x, self.kernel, self.stride, self.padding, self.submanifold)
        if self.submanifold:
            x.rulebooks[key] = book
        return book


def build_rulebook(
    x: SparseTensor, kernel: Triple, stride: Triple, padding: Triple, submanifold: bool
) -> Rulebook:
    """Find the neighbours of all active voxels."""
    device = x.indices.device
    shape = tuple(
        (size + 2 * p - k) // s + 1
        for size, k, s, p in zip(x.shape, kernel, stride, padding, strict=True)
    )
    places = torch.tensor(list(itertools.product(*map(range, kernel))), device=device)  # (K, 3)
    step, limit = torch.tensor(stride, device=device), torch.tensor(shape, device=device)
    # the result's voxel that each voxel is seen by through each place of the kernel
    reach = x.indices[:, None, 1:] + torch.tensor(padding, device=device) - places
    target = reach.div(step, rounding_mode="floor")
    valid = ((reach % step == 0) & (target >= 0) & (target < limit)).all(-1)  # (V, K)
    # Sorted numbers instead of a hash table: they are found in the same order on every device.
    ids = _ids(x.indices[:, :1].expand(-1, len(places)), target, shape)
    if submanifold:
        own = _ids(x.indices[:, 0], x.indices[:, 1:], x.shape)
        active, order = own.sort()
    else:
        active = torch.unique(ids[valid])
        order = torch.arange(len(active), device=device)
    amount = len(active)
    found = torch.searchsorted(active, ids).clamp(max=max(0, amount - 1))
    valid = valid & (active[found] == ids if amount else False)
    # `amount`, and V below, stand for the row of zeros that `_gathered` puts behind all others.
    targets = torch.where(valid, order[found] if amount else found, amount)
    voxel = torch.arange(len(x.indices), device=device)[:, None].expand_as(targets)
    place = torch.arange(len(places), device=device).expand_as(targets)
    sources = torch.full((amount, len(places)), len(x.indices), device=device)
    sources[targets[valid], place[valid]] = voxel[valid]
    indices = x.indices if submanifold else _from_ids(active, shape)
    return Rulebook(indices, shape, sources, targets)  # type: ignore[arg-type]


def _ids(sample: Tensor, zyx: Tensor, shape: tuple[int, ...]) -> Tensor:
    z, y, x = zyx.unbind(-1)
    return ((sample * shape[0] + z) * shape[1] + y) * shape[2] + x


def _from_ids(ids: Tensor, shape: tuple[int, ...]) -> Tensor:
    x, y = ids % shape[2], ids // shape[2] % shape[1]
    z, sample = ids // (shape[2] * shape[1]) % shape[0], ids // math.prod(shape)
    return torch.stack([sample, z, y, x], 1)


class _GatherConvolution(torch.autograd.Function):
    """Gather neighbours, multiply; backward gathers too, through the transposed table."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, book: Rulebook) -> Tensor:
        """(V, Cin) and (K, Cin, Cout) to (U, Cout)."""
        ctx.save_for_backward(features, weight)
        ctx.book = book
        return _gathered(features, book.sources) @ weight.flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Gradients of features and weight."""
        features, weight = ctx.saved_tensors
        of_features = of_weight = None
        if ctx.needs_input_grad[0]:
            transposed = weight.transpose(1, 2).flatten(0, 1)  # (K * Cout, Cin)
            of_features = _gathered(gradient, ctx.book.targets) @ transposed
        if ctx.needs_input_grad[1]:
            of_weight = (_gathered(features, ctx.book.sources).T @ gradient).view_as(weight)
        return of_features, of_weight, None


def _gathered(features: Tensor, table: Tensor) -> Tensor:
    """(V, C) and (U, K) to (U, K * C), zero where the table has no entry."""
    padded = torch.cat([features, features.new_zeros(1, features.shape[1])])
    # copies whole rows; indexing by a table takes twice as long on a CPU
    rows = padded.index_select(0, table.flatten())
    return rows.view(len(table), table.shape[1] * rows.shape[1])


def _convolve_by_spconv(conv: SparseConv3d, x: SparseTensor) -> SparseTensor:
    if spconv is None:
        raise ModuleNotFoundError("spconv is not installed", name="spconv")
    kind = spconv.SubMConv3d if conv.submanifold else spconv.SparseConv3d
    key = f"{conv.kernel}{conv.stride}{conv.padding}{tuple(x.shape)}"
    # Without memory of its own: the weights are ours, and spconv's layout (Cout, kz, ky, kx, Cin)
    # is made for the call.
    with torch.device("meta"):
        layer = kind(
            *conv.weight.shape[3:], conv.kernel, conv.stride, conv.padding, bias=False,
            indice_key=key if conv.submanifold else None,
        )  # fmt: skip
    weight = conv.weight.permute(4, 0, 1, 2, 3).contiguous()
    given = spconv.SparseConvTensor(x.features, x.indices.int(), list(x.shape), x.batch)
    out = torch.func.functional_call(layer, {"weight": weight}, (given,))
    if conv.submanifold:
        return x.with_features(out.features)
    return SparseTensor(out.features, out.indices.long(), tuple(out.spatial_shape), x.batch)
