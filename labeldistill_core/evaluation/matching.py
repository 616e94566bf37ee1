# SPDX-License-Identifier: Apache-2.0
"""Which prediction meets which true box: the devkit's greedy matching, over arrays.

The best score first, each prediction takes the nearest true box of its class and sample that is
free, if it is near enough (nuScenes detection task, "Average precision"). The devkit looks at every
true box of the sample for every prediction and threshold; here distances are computed once for all
pairs that may meet, and the greedy walk sees no others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_PAIRS_AT_ONCE = 1 << 22
"""Pairs whose distances are computed together; bounds the memory, at 100 bytes a pair."""


@dataclass(frozen=True, eq=False)
class GroundPoints:
    """N boxes as the matching sees them."""

    samples: NDArray[np.int64]
    """(N,) number of each box's sample."""
    centers_m: NDArray[np.float64]
    """(N, 2) on the ground, metres."""


class NearPairs:
    """Predictions and true boxes of one class that are near enough to meet."""

    def __init__(
        self,
        truth: GroundPoints,
        predicted: GroundPoints,
        scores: NDArray[np.float64],
        most_m: float,
    ) -> None:
        """Find all pairs.

        Args:
            truth: true boxes, those of one sample together and samples in ascending order.
            predicted: predictions in any order.
            scores: of the predictions; of equal ones the later comes first, as in the devkit.
            most_m: centres of a match are nearer than this, metres.
        """
        count = len(scores)
        self.order = np.lexsort((np.arange(count), scores))[::-1]
        """(P,) predictions, best first; a prediction's place here is its rank."""
        samples, centers = predicted.samples[self.order], predicted.centers_m[self.order]
        first = np.searchsorted(truth.samples, samples, "left")
        rivals = np.searchsorted(truth.samples, samples, "right") - first
        ends = np.cumsum(rivals)
        ranks, trues, distances = [], [], []
        start = 0
        while start < count:
            before = ends[start - 1] if start else 0
            end = max(start + 1, int(np.searchsorted(ends, before + _PAIRS_AT_ONCE, "right")))
            part = rivals[start:end]
            rank = np.repeat(np.arange(start, end), part)
            # Counts up from the first true box of the prediction's sample.
            step = np.arange(len(rank)) - np.repeat(np.cumsum(part) - part, part)
            true = first[rank] + step
            gap = centers[rank] - truth.centers_m[true]
            distance = np.sqrt((gap * gap).sum(axis=1))
            near = distance < most_m
            ranks.append(rank[near])
            trues.append(true[near])
            distances.append(distance[near])
            start = end
        rank, true = np.concatenate([*ranks, []]), np.concatenate([*trues, []])
        distance = np.concatenate([*distances, []])
        # By rank, and for each the nearest first; of equally near ones the first, as in the devkit.
        walk = np.lexsort((true, distance, rank))
        self._rank, self._true = rank[walk].astype(np.int64), true[walk].astype(np.int64)
        self._distance_m = distance[walk]
        self._counts = count, len(truth.samples)

    def match(self, below_m: float) -> NDArray[np.int64]:
        """(P,) true box that each prediction meets, by rank; -1 for none.

        Args:
            below_m: centres of a match are nearer than this; at most that of the pairs.
        """
        predictions, truths = self._counts
        met, taken = [-1] * predictions, bytearray(truths)
        near = self._distance_m < below_m
        for rank, true in zip(self._rank[near].tolist(), self._true[near].tolist(), strict=True):
            # Greedy and not the best assignment: the best-scored prediction takes the nearest true
            # box that is left, by which nuScenes defines a match.
            if met[rank] < 0 and not taken[true]:
                met[rank] = true
                taken[true] = 1
        return np.array(met, np.int64)
