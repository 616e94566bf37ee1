# SPDX-License-Identifier: Apache-2.0
"""Circle suppression: of centres that are near to each other, the best one remains.

Shapes: B batch, T tasks, M candidates of a task.
Source: CenterPoint (Yin et al., CVPR 2021), section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_PART = 128
"""Candidates of a task whose distances are computed together on a CPU."""


def circle_nms(
    centers: Tensor,
    valid: Tensor,
    radius_m2: Sequence[float],
    limit: int,
    rounds: int | None = None,
    decided: int = 0,
) -> tuple[Tensor, Tensor]:
    """Which centres no better one suppresses.

    A centre remains when no remaining one before it is near. With a number of rounds, all centres
    are looked at together, as a GPU wants it: starting from all, every round decides the centres
    whose suppressors have been decided, so the rounds end with the longest chain of neighbours,
    which is short. Without one, centres are looked at one by one, on the CPU.

    Args:
        centers: (B, T, M, 2) metres, in a task by descending score.
        valid: (B, T, M) bool; the others neither remain nor suppress.
        radius_m2: per task: a centre within this squared distance of a remaining one is dropped.
        limit: most centres of a task that remain.
        rounds: at most so many, without looking whether more are needed; None for one by one.
        decided: the first so many are known: `valid` says which of them remain. One by one only.

    Returns:
        (B, T, M) bool, and (1,) bool: whether the rounds were enough.
    """
    if rounds is None:
        keep = _circle_nms_one_by_one(centers, valid, radius_m2, limit, decided)
        return keep, valid.new_ones(1)
    # Squares of differences, not |a|^2 + |b|^2 - 2ab, which loses all digits for near centres on a
    # large map.
    x, y = ((c[..., :, None] - c[..., None, :]).square() for c in centers.unbind(-1))
    squared = x + y
    pairs = zip(squared.unbind(1), radius_m2, strict=True)
    # Strictly below the diagonal: only a better candidate suppresses.
    near = torch.stack([task <= radius for task, radius in pairs], dim=1).tril(-1).float()
    before = keep = valid
    for _ in range(rounds):
        before, keep = keep, valid & ((near @ keep[..., None].float())[..., 0] == 0)
    return keep & (keep.cumsum(-1) <= limit), (before == keep).all()[None]


def _circle_nms_one_by_one(
    centers: Tensor, valid: Tensor, radius_m2: Sequence[float], limit: int, decided: int
) -> Tensor:
    """(B, T, M) bool; a task ends when it has its `limit`, after few of its candidates."""
    keep = np.zeros(valid.shape, np.bool_)
    for sample, sample_valid, sample_keep in zip(centers.numpy(), valid.numpy(), keep, strict=True):
        tasks = zip(sample, sample_valid, sample_keep, radius_m2, strict=True)
        for (x, y), candidates, kept, radius in ((c.T, v, k, r) for c, v, k, r in tasks):
            kept[_remaining(x, y, candidates, radius, limit, decided)] = True
    return torch.from_numpy(keep)


def _remaining(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    valid: NDArray[np.bool_],
    radius_m2: float,
    limit: int,
    decided: int,
) -> list[int]:
    """Which of the candidates of a task remain, by index."""
    kept: list[int] = valid[:decided].nonzero()[0].tolist()
    for begin in range(decided, len(x) if len(kept) < limit else decided, _PART):
        part = slice(begin, begin + _PART)

        def far(these: list[int] | slice, part: slice = part) -> NDArray[np.bool_]:
            squared_m2 = (x[these, None] - x[part]) ** 2 + (y[these, None] - y[part]) ** 2
            return np.asarray(~(squared_m2 <= radius_m2))

        # All pairs of a part at once, as bits of one number for each candidate: candidate by
        # candidate, calls take longer than the numbers.
        left = _bits(valid[part] & far(kept).all(axis=0))
        others = np.packbits(far(part), axis=1, bitorder="little")
        while left:
            index = (left & -left).bit_length() - 1  # the best one
            kept.append(begin + index)
            if len(kept) == limit:
                return kept
            left &= int.from_bytes(others[index].tobytes(), "little") & ~(1 << index)
    return kept


def _bits(flags: NDArray[np.bool_]) -> int:
    """The first flag as the lowest bit."""
    return int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little")
