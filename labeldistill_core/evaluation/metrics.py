# SPDX-License-Identifier: Apache-2.0
"""The official nuScenes detection metrics on any list of samples.

The devkit's own functions average (configuration `detection_cvpr_2019`); filtering and matching,
which take it minutes for a whole split, are ours, with the same numbers. The truth comes from
`GroundTruth`, so a rosbag that carries it can be scored without a data root.

- AP of a class: precision over recall above 0.1, averaged over centre distances 0.5, 1, 2 and 4 m;
  mAP is its mean over the classes, 0 to 1.
- mATE, mASE, mAOE, mAVE, mAAE: errors of matches within 2 m in metres, 1 - IoU, radians, metres
  per second and 1 - accuracy; lower is better.
- NDS: (5 mAP + sum of max(0, 1 - error)) / 10, 0 to 1.

Classes and their ranges are those of the truth, nuScenes' ten by default. What the devkit rules for
single classes holds for nuScenes' names: barriers have no front and no velocity, cones no heading.
Classes of other names have a heading, a velocity and no attribute; in a list other than nuScenes'
own, attributes count for those of its classes alone whose true boxes have any. An error that no
class has is left out of the NDS, whose sum is then divided by 5 and the number of errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labeldistill_core.classes import CLASSES, NUSCENES
from labeldistill_core.data.nuscenes_records import GroundTruth
from labeldistill_core.evaluation.accumulation import accumulate
from labeldistill_core.evaluation.counted_boxes import EvaluationBoxes, evaluation_boxes
from labeldistill_core.evaluation.result_columns import ResultBox
from labeldistill_core.files import write_json

SHORT = {
    "trans_err": "mATE",
    "scale_err": "mASE",
    "orient_err": "mAOE",
    "vel_err": "mAVE",
    "attr_err": "mAAE",
}
"""The leaderboard's names of the errors."""


@dataclass(frozen=True)
class Metrics:
    """nuScenes detection metrics; a value is NaN where a class has no such error."""

    mean_ap: float
    """Mean average precision over classes and matching distances, 0 to 1."""
    nds: float
    """nuScenes detection score, 0 to 1."""
    tp_errors: dict[str, float]
    """Mean over classes by the devkit's name: trans_err, scale_err and so on."""
    class_ap: dict[str, float]
    """Mean over distances by class."""
    class_ap_at_m: dict[str, dict[float, float]]
    """By class and matching distance in metres."""
    class_tp_errors: dict[str, dict[str, float]]
    """By class and error."""
    truth_boxes: dict[str, int]
    """Ground truth that counted, by class."""
    predicted_boxes: dict[str, int]
    """Predictions that counted, by class."""
    samples: int
    """How many were scored."""
    precision: dict[str, dict[float, tuple[float, ...]]]
    """By class and matching distance, at recall 0, 0.01 and so on to 1."""

    def write(self, path: Path) -> None:
        """As JSON; NaN becomes null."""
        write_json(path, self.as_json())

    def as_json(self) -> dict[str, Any]:
        """Under the names that the leaderboard uses; null for NaN."""
        return {
            "NDS": self.nds,
            "mAP": self.mean_ap,
            **{SHORT[error]: json_ready(value) for error, value in self.tp_errors.items()},
            "samples": self.samples,
            "classes": {name: self._class_json(name) for name in self.class_ap},
        }

    def _class_json(self, name: str) -> dict[str, Any]:
        # Without the m of "mean": ATE is a class's own.
        errors = {SHORT[e][1:]: v for e, v in self.class_tp_errors[name].items()}
        content: dict[str, Any] = json_ready(
            {
                "AP": self.class_ap[name],
                "AP_at_m": self.class_ap_at_m[name],
                **errors,
                "truth_boxes": self.truth_boxes[name],
                "predicted_boxes": self.predicted_boxes[name],
            }
        )
        return content

    def table(self) -> str:
        """The scores as lines of text, first the means, then a line for each class."""
        errors = "  ".join(f"{SHORT[k]} {v:.4f}" for k, v in self.tp_errors.items())
        lines = [
            f"mAP {self.mean_ap:.4f}  NDS {self.nds:.4f}  ({self.samples} samples)",
            errors,
            "",
            f"{'class':<21}{'truth':>7}{'boxes':>7}{'AP':>8}{'0.5 m':>8}{'1 m':>8}{'2 m':>8}"
            f"{'4 m':>8}",
        ]
        for name in self.class_ap:
            counts = f"{self.truth_boxes[name]:>7}{self.predicted_boxes[name]:>7}"
            values = [self.class_ap[name], *self.class_ap_at_m[name].values()]
            # The devkit counts a class without true boxes as 0, which is no precision of anything.
            there = self.truth_boxes[name] > 0
            cells = "".join(f"{v:8.3f}" if there else f"{'-':>8}" for v in values)
            lines.append(f"{name:<21}{counts}{cells}")
        return "\n".join(lines)


def evaluate(truths: Sequence[GroundTruth], results: Mapping[str, Sequence[ResultBox]]) -> Metrics:
    """Score results on exactly the samples of the ground truth.

    A sample without results counts as one without boxes; results for other samples are left out.

    Args:
        truths: the samples to score.
        results: boxes by sample token; see `result_boxes.result_boxes`. Their order breaks ties
            between equal scores.

    Raises:
        DataError: no sample, a token comes twice, a box is malformed, or there are too many.
    """
    return evaluate_boxes(evaluation_boxes(truths, results))


def evaluate_boxes(boxes: EvaluationBoxes) -> Metrics:
    """Score what `evaluation_boxes` left, or a part of it."""
    # Imported here: the devkit pulls in matplotlib and takes seconds, which other commands need not
    # wait for.
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.algo import calc_ap, calc_tp
    from nuscenes.eval.detection.constants import TP_METRICS
    from nuscenes.eval.detection.data_classes import DetectionMetrics

    config = config_factory("detection_cvpr_2019")
    names = boxes.classes.names
    # nuScenes' names in the devkit's order, so that its means come out the same to the last digit.
    config.class_names = sorted(names, key=[*config.class_range, *names].index)
    curves: dict[str, dict[float, tuple[float, ...]]] = {name: {} for name in names}
    metrics = DetectionMetrics(config)
    for name in config.class_names:
        data = accumulate(boxes, name, config.dist_ths)
        for distance, matches in data.items():
            ap = calc_ap(matches, config.min_recall, config.min_precision)
            metrics.add_label_ap(name, distance, ap)
            # Kept for the charts: the devkit would compute them again.
            curves[name][float(distance)] = tuple(matches.precision.tolist())
        for error in TP_METRICS:
            value = math.nan
            if error not in _undefined_errors(name, boxes):
                value = calc_tp(data[config.dist_th_tp], config.min_recall, error)
            metrics.add_label_tp(name, error, value)
    errors = {
        error: _mean([metrics.get_label_tp(name, error) for name in config.class_names])
        for error in TP_METRICS
    }
    return Metrics(
        mean_ap=metrics.mean_ap,
        nds=_detection_score(config.mean_ap_weight, metrics.mean_ap, errors),
        tp_errors=errors,
        class_ap={name: float(metrics.mean_dist_aps[name]) for name in names},
        class_ap_at_m={
            name: {float(d): float(metrics.get_label_ap(name, d)) for d in config.dist_ths}
            for name in names
        },
        class_tp_errors={
            name: {e: float(metrics.get_label_tp(name, e)) for e in TP_METRICS} for name in names
        },
        truth_boxes=boxes.truth.by_class(),
        predicted_boxes=boxes.predicted.by_class(),
        samples=len(boxes.truths),
        precision=curves,
    )


def json_ready(value: Any) -> Any:
    """Plain JSON: keys as text, null for a number that is not finite."""
    if isinstance(value, dict):
        return {str(k): json_ready(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(v) for v in value]
    # JSON has no NaN; Python writes one that other readers refuse.
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _mean(values: Sequence[float]) -> float:
    """Mean of the values that are defined; NaN without any."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def _detection_score(weight: float, mean_ap: float, errors: Mapping[str, float]) -> float:
    """The NDS, over the errors that are defined."""
    scores = [max(0.0, 1.0 - error) for error in errors.values() if not math.isnan(error)]
    return float(weight * mean_ap + np.sum(scores)) / (weight + len(scores))


def _undefined_errors(class_name: str, boxes: EvaluationBoxes) -> tuple[str, ...]:
    """Errors that nuScenes does not define: cones look alike from all sides, barriers stay."""
    if class_name == "traffic_cone":
        return ("attr_err", "vel_err", "orient_err")
    if class_name == "barrier":
        return ("attr_err", "vel_err")
    if class_name in CLASSES and (boxes.classes == NUSCENES or _has_attributes(class_name, boxes)):
        return ()
    return ("attr_err",)


def _has_attributes(class_name: str, boxes: EvaluationBoxes) -> bool:
    """Whether a true box of the class has an attribute."""
    true = boxes.truth.boxes
    own = true.attributes[true.labels == boxes.classes.names.index(class_name)]
    return any(true.attribute_names[code] for code in set(own.tolist()))
