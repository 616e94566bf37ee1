# SPDX-License-Identifier: Apache-2.0
"""Precision and errors of one class over recall, from matches; the devkit averages them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.evaluation.counted_boxes import CountedBoxes, EvaluationBoxes
from labeldistill_core.evaluation.matching import GroundPoints, NearPairs


def near_pairs(boxes: EvaluationBoxes, label: int, most_m: float) -> tuple[
    NearPairs, NDArray[np.int64], NDArray[np.int64]
]:  # fmt: skip
    """Boxes of one class that may meet, and their rows among the true and the predicted ones."""
    true = np.flatnonzero(boxes.truth.boxes.labels == label)
    predicted = np.flatnonzero(boxes.predicted.boxes.labels == label)
    pairs = NearPairs(
        _points(boxes.truth, true),
        _points(boxes.predicted, predicted),
        boxes.predicted.boxes.scores[predicted],
        most_m,
    )
    return pairs, true, predicted


def accumulate(
    boxes: EvaluationBoxes, class_name: str, thresholds_m: Sequence[float]
) -> dict[float, Any]:
    """The devkit's `DetectionMetricData` of one class for each matching distance.

    Args:
        boxes: what counts.
        class_name: one of the truth's classes.
        thresholds_m: centres of a match are nearer than this, metres.
    """
    from nuscenes.eval.common.utils import cummean
    from nuscenes.eval.detection.data_classes import DetectionMetricData

    # What follows is `accumulate` of the devkit (nuscenes.eval.detection.algo) over arrays; its
    # figures agree within 1e-12.
    none = DetectionMetricData.no_predictions()
    label = boxes.classes.names.index(class_name)
    pairs, true, predicted = near_pairs(boxes, label, max(thresholds_m))
    scores = boxes.predicted.boxes.scores[predicted][pairs.order]
    # A barrier looks alike from both sides.
    period = np.pi if class_name == "barrier" else 2 * np.pi
    found: dict[float, Any] = {}
    for threshold_m in thresholds_m:
        met = pairs.match(threshold_m)
        hit = met >= 0
        if not hit.any():
            found[threshold_m] = none
            continue
        hits = np.cumsum(hit)
        levels = np.linspace(0, 1, DetectionMetricData.nelem)
        recall = hits / len(true)
        precision = hits / np.arange(1, len(hit) + 1)
        # Beyond the recall that is reached, precision and confidence are 0, so that AP punishes
        # what is not found.
        confidence = np.interp(levels, recall, scores, right=0)
        errors = _errors(boxes, true[met[hit]], predicted[pairs.order[hit]], period)
        found[threshold_m] = DetectionMetricData(
            recall=levels,
            precision=np.interp(levels, recall, precision, right=0),
            confidence=confidence,
            # Means over all matches down to a confidence; `interp` wants it to ascend.
            **{
                name: np.interp(confidence[::-1], scores[hit][::-1], cummean(values)[::-1])[::-1]
                for name, values in errors.items()
            },
        )
    return found


def _points(side: CountedBoxes, rows: NDArray[np.int64]) -> GroundPoints:
    return GroundPoints(side.samples[rows], side.boxes.centers_m[rows, :2])


def _errors(
    boxes: EvaluationBoxes, true: NDArray[np.int64], predicted: NDArray[np.int64], period: float
) -> dict[str, NDArray[np.float64]]:
    """Errors of matches in their order; see `metrics` for the units.

    Args:
        boxes: what counts.
        true: rows of the true boxes.
        predicted: rows of the predictions that met them.
        period: of the yaw, radians.
    """
    a, b = boxes.truth.boxes[true], boxes.predicted.boxes[predicted]
    # IoU of boxes that are laid on one another, centre on centre and heading on heading: an error
    # of the sizes alone.
    common = np.minimum(a.sizes_m, b.sizes_m).prod(axis=1)
    union = a.sizes_m.prod(axis=1) + b.sizes_m.prod(axis=1) - common
    # Wrapped to half a period on each side: headings of 179 and -179 degrees are near.
    turn = (a.yaws - b.yaws + period / 2) % period - period / 2
    # Each side numbers attributes by itself; a name that no true box has is -1, which is always
    # wrong.
    names = {name: code for code, name in enumerate(a.attribute_names)}
    known = np.array([names.get(name, -1) for name in (*b.attribute_names, "")], np.int64)
    wrong = (a.attributes != known[b.attributes]).astype(np.float64)
    # About 0.4 % of the annotations lack the attribute that their class has.
    wrong[a.attributes == names.get("", -1)] = np.nan
    return {
        "trans_err": np.linalg.norm(a.centers_m[:, :2] - b.centers_m[:, :2], axis=1),
        "vel_err": np.linalg.norm(a.velocities_m_s - b.velocities_m_s, axis=1),
        "scale_err": 1 - common / union,
        "orient_err": np.abs(turn),
        "attr_err": wrong,
    }
