# SPDX-License-Identifier: Apache-2.0
"""Where a detector is good and where not: by distance, visibility and LiDAR returns.

Distance is known of true and of predicted boxes, so each band has the official metrics. The other
two are known of true boxes alone; for them the recall is told, which needs no false positives: the
share of true boxes that a prediction of their class matches within 2 m. Matching is the devkit's:
best score first, each to the nearest true box that is free.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.evaluation.accumulation import near_pairs
from labeldistill_core.evaluation.counted_boxes import EvaluationBoxes
from labeldistill_core.evaluation.metrics import evaluate_boxes

# The devkit's `dist_th_tp`, at which it takes the errors of true positives too.
MATCH_M = 2.0
"""Centres of a match are nearer than this on the ground."""
DISTANCES_M = (0.0, 10.0, 20.0, 30.0, 40.0, 50.0)
"""Borders of the bands; another goes to the farthest range of a class that is beyond them."""
# Steps of about four: a box at twice the distance gets a quarter of the returns.
RETURNS = (1, 5, 20, 100)
"""Fewest LiDAR points of a group."""


@dataclass(frozen=True)
class Group:
    """True boxes with something in common, and how well they were found."""

    name: str
    """What these boxes have in common, such as `20-30 m`."""
    truth_boxes: int
    """How many there are."""
    recall: float
    """Share that was found, 0 to 1; NaN without boxes."""
    center_error_m: float
    """Mean distance of the centres over those found; NaN without any."""
    mean_ap: float = math.nan
    """Mean AP over the classes that have true boxes here; NaN where it is undefined."""


@dataclass(frozen=True)
class SampleMatches:
    """Matches and misses of one sample."""

    found: int
    """True boxes that were matched."""
    missed: int
    """True boxes that were not."""
    false: int
    """Predictions with a score of at least the threshold that match nothing."""

    @property
    def f1(self) -> float:
        """2 found / (2 found + missed + false); 1 when there was nothing to find."""
        wrong = self.missed + self.false
        return 2 * self.found / (2 * self.found + wrong) if self.found + wrong else 1.0


@dataclass(frozen=True)
class Breakdown:
    """The same true boxes grouped by distance, by visibility and by LiDAR returns."""

    distance: tuple[Group, ...]
    """Groups by distance from the vehicle; boxes beyond their class's range do not count."""
    visibility: tuple[Group, ...]
    """Groups by nuScenes level: the share of the object that the cameras see, in percent."""
    lidar_returns: tuple[Group, ...]
    """Groups by the number of LiDAR points in the box."""

    @property
    def criteria(self) -> dict[str, tuple[Group, ...]]:
        """The groups by the name of their criterion."""
        return {
            "distance": self.distance,
            "visibility": self.visibility,
            "LiDAR returns": self.lidar_returns,
        }

    def table(self) -> str:
        """All groups as lines of text, a block for each criterion."""
        lines = []
        for criterion, groups in self.criteria.items():
            title = f"{criterion:<21}{'truth':>7}{'recall':>8}{'error m':>9}"
            banded = any(math.isfinite(group.mean_ap) for group in groups)
            lines += ["", title + (f"{'mAP':>8}" if banded else "")]
            for group in groups:
                row = f"{group.name:<21}{group.truth_boxes:>7}{_shown(group.recall):>8}"
                row += f"{_shown(group.center_error_m):>9}"
                lines.append(row + (f"{_shown(group.mean_ap):>8}" if banded else ""))
        return "\n".join(lines[1:])


@dataclass(frozen=True, eq=False)
class Matches:
    """Which boxes met."""

    truth_m: NDArray[np.float64]
    """Centre distance of each true box to the prediction that it met, metres; NaN without one."""
    predicted_m: NDArray[np.float64]
    """Of each prediction to the true box."""


def match_boxes(boxes: EvaluationBoxes, min_score: float = 0.0) -> Matches:
    """Match all classes.

    Args:
        boxes: of the evaluation.
        min_score: predictions below are not looked at.
    """
    # Weak predictions are taken out before the matching: as the worst they would meet nothing that
    # a better one wants, but would be counted as found.
    strong = np.flatnonzero(boxes.predicted.boxes.scores >= min_score)
    part = replace(boxes, predicted=boxes.predicted[strong])
    matches = Matches(np.full(len(boxes.truth), np.nan), np.full(len(boxes.predicted), np.nan))
    for label in range(len(boxes.classes.names)):
        pairs, true, predicted = near_pairs(part, label, MATCH_M)
        met = pairs.match(MATCH_M)
        rows, others = true[met[met >= 0]], predicted[pairs.order[met >= 0]]
        gaps = boxes.truth.boxes.centers_m[rows] - part.predicted.boxes.centers_m[others]
        distance = np.linalg.norm(gaps[:, :2], axis=1)
        matches.truth_m[rows] = matches.predicted_m[strong[others]] = distance
    return matches


def sample_matches(boxes: EvaluationBoxes, min_score: float) -> dict[str, SampleMatches]:
    """What was found, missed and invented, by sample token."""
    matched = np.isfinite(match_boxes(boxes, min_score).truth_m)

    def count(samples: NDArray[np.int64]) -> list[int]:
        counts: list[int] = np.bincount(samples, minlength=len(boxes.truths)).tolist()
        return counts

    found, there = count(boxes.truth.samples[matched]), count(boxes.truth.samples)
    strong = count(boxes.predicted.samples[boxes.predicted.boxes.scores >= min_score])
    return {
        truth.sample_token: SampleMatches(hit, all_ - hit, said - hit)
        for truth, hit, all_, said in zip(boxes.truths, found, there, strong, strict=True)
    }


def break_down(boxes: EvaluationBoxes) -> Breakdown:
    """Score by group what counts in the evaluation."""
    side = boxes.truth
    errors_m = match_boxes(boxes).truth_m

    def told(kind: str) -> NDArray[Any]:
        """(T,) a quantity of the true boxes that the evaluation does not need."""
        values = [getattr(truth, kind) for truth in boxes.truths]
        return np.array([values[s][i] for s, i in zip(side.samples, side.places, strict=True)])

    def group(name: str, chosen: NDArray[np.bool_], mean_ap: float = math.nan) -> Group:
        found = errors_m[chosen]
        found = found[np.isfinite(found)]
        count = int(chosen.sum())
        recall = len(found) / count if count else math.nan
        return Group(name, count, recall, _mean(found.tolist()), mean_ap)

    bands = []
    farthest_m = max(boxes.classes.ranges_m)
    borders = (*DISTANCES_M, *([farthest_m] if farthest_m > DISTANCES_M[-1] else []))
    for near, far in pairwise(borders):
        metrics = evaluate_boxes(boxes.between(near, far))
        # A class without true boxes in a band has no AP there, rather than one of zero.
        aps = [metrics.class_ap[name] for name in boxes.classes.names if metrics.truth_boxes[name]]
        inside = (near <= side.distances_m) & (side.distances_m < far)
        bands.append(group(f"{near:g}-{far:g} m", inside, _mean(aps)))
    points, levels = told("num_lidar_pts"), told("visibility")
    edges = [(0, RETURNS[0]), *zip(RETURNS, (*RETURNS[1:], math.inf), strict=True)]
    return Breakdown(
        tuple(bands),
        tuple(
            group(re.sub(r"^v(\d+-\d+)$", r"\1 %", level or "unknown"), levels == level)
            for level in sorted(set(levels.tolist()), key=lambda level: level or "unknown")
        ),
        (
            *(group(_range(low, high), (low <= points) & (points < high)) for low, high in edges),
            # Of data without a LiDAR.
            *([group("unknown", points < 0)] if (points < 0).any() else []),
        ),
    )


def _range(low: int, high: float) -> str:
    if high == math.inf:
        return f"{low} and more"
    return f"{low}" if high == low + 1 else f"{low}-{high - 1:g}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _shown(value: float) -> str:
    """Three decimals; a dash for what no box defines."""
    return "-" if math.isnan(value) else f"{value:.3f}"
