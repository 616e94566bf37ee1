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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labeldistill_core.classes import CLASSES
from labeldistill_core.data.nuscenes_records import GroundTruth
from labeldistill_core.evaluation.devkit import EvaluationBoxes, evaluation_boxes
from labeldistill_core.evaluation.metrics import evaluate_boxes
from labeldistill_core.evaluation.result_boxes import ResultBox

MATCH_M = 2.0
"""Centres of a match are nearer than this on the ground."""
DISTANCES_M = (0.0, 10.0, 20.0, 30.0, 40.0, 50.0)
"""Borders of the bands."""
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
                row = f"{group.name:<21}{group.truth_boxes:>7}{group.recall:8.3f}"
                row += f"{group.center_error_m:9.3f}"
                lines.append(row + (f"{group.mean_ap:8.3f}" if banded else ""))
        return "\n".join(lines[1:])


def match_boxes(boxes: EvaluationBoxes, min_score: float = 0.0) -> dict[int, float]:
    """Centre distance in metres by `id` of each matched box, the true ones and the predicted.

    Args:
        boxes: of the evaluation.
        min_score: predictions below are not looked at.
    """
    matched: dict[int, float] = {}
    for token in boxes.predicted.sample_tokens:
        predicted = [b for b in boxes.predicted[token] if b.detection_score >= min_score]
        # of equal scores the later one first, as in the devkit
        order = sorted(range(len(predicted)), key=lambda i: (predicted[i].detection_score, i))
        for index in reversed(order):
            box = predicted[index]
            # Greedy by score with each true box given once, the devkit's matching at 2 m; it keeps
            # no record of who met whom.
            free = [
                (math.dist(box.translation[:2], true.translation[:2]), i, true)
                for i, true in enumerate(boxes.truth[token])
                # By identity: the devkit's boxes compare by value, and two true boxes may be equal.
                if true.detection_name == box.detection_name and id(true) not in matched
            ]
            if free:
                distance, _, true = min(free, key=lambda entry: entry[:2])
                if distance < MATCH_M:
                    matched[id(true)] = matched[id(box)] = distance
    return matched


def sample_matches(boxes: EvaluationBoxes, min_score: float) -> dict[str, SampleMatches]:
    """What was found, missed and invented, by sample token."""
    matched = match_boxes(boxes, min_score)
    out = {}
    for token in boxes.truth.sample_tokens:
        found = sum(id(box) in matched for box in boxes.truth[token])
        # Recall needs no threshold, but weak boxes of a detector that was asked for all of them are
        # not invented ones.
        strong = [b for b in boxes.predicted[token] if b.detection_score >= min_score]
        out[token] = SampleMatches(found, len(boxes.truth[token]) - found, len(strong) - found)
    return out


def break_down(
    truths: Sequence[GroundTruth], results: Mapping[str, Sequence[ResultBox]]
) -> Breakdown:
    """Score by group; see `metrics.evaluate` for the arguments."""
    boxes = evaluation_boxes(truths, results)
    matched = match_boxes(boxes)

    def points(box: Any) -> int:
        truth, index = boxes.origin[id(box)]
        return truth.num_lidar_pts[index]

    def level(box: Any) -> str:
        truth, index = boxes.origin[id(box)]
        return truth.visibility[index] or "unknown"

    def group(name: str, chosen: Callable[[Any], bool], mean_ap: float = math.nan) -> Group:
        all_ = [box for box in boxes.truth.all if chosen(box)]
        errors = [matched[id(box)] for box in all_ if id(box) in matched]
        recall = len(errors) / len(all_) if all_ else math.nan
        return Group(name, len(all_), recall, _mean(errors), mean_ap)

    bands = []
    for near, far in zip(DISTANCES_M, DISTANCES_M[1:], strict=False):
        part = boxes.between(near, far)
        metrics = evaluate_boxes(part, len(truths))
        # A class without true boxes in a band has no AP there, rather than one of zero.
        aps = [metrics.class_ap[name] for name in CLASSES if metrics.truth_boxes[name]]
        # The devkit measures the distance, so that bands here and ranges there agree on borders.
        inside = {id(box) for box in part.truth.all}
        bands.append(
            group(f"{near:g}-{far:g} m", lambda box, i=inside: id(box) in i, _mean(aps))  # type: ignore[misc]
        )
    levels = sorted({level(box) for box in boxes.truth.all})
    edges = [(0, RETURNS[0]), *zip(RETURNS, (*RETURNS[1:], math.inf), strict=True)]
    return Breakdown(
        tuple(bands),
        tuple(
            group(re.sub(r"^v(\d+-\d+)$", r"\1 %", name), lambda box, n=name: level(box) == n)  # type: ignore[misc]
            for name in levels
        ),
        tuple(
            group(
                _range(low, high),
                lambda box, low=low, high=high: low <= points(box) < high,  # type: ignore[misc]
            )
            for low, high in edges
        ),
    )


def _range(low: int, high: float) -> str:
    if high == math.inf:
        return f"{low} and more"
    return f"{low}" if high == low + 1 else f"{low}-{high - 1:g}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
