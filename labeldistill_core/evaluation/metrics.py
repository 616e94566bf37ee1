# SPDX-License-Identifier: Apache-2.0
"""The official nuScenes detection metrics on any list of samples.

The devkit's own functions do the filtering, matching and averaging (configuration
`detection_cvpr_2019`). What they ask of a data set comes from `GroundTruth`, so a rosbag that
carries it can be scored without a data root.

- AP of a class: precision over recall above 0.1, averaged over centre distances 0.5, 1, 2 and 4 m;
  mAP is its mean over the ten classes, 0 to 1.
- mATE, mASE, mAOE, mAVE, mAAE: errors of matches within 2 m in metres, 1 - IoU, radians, metres
  per second and 1 - accuracy; lower is better.
- NDS: (5 mAP + sum of max(0, 1 - error)) / 10, 0 to 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.classes import CLASSES
from labeldistill_core.data.nuscenes import LIDAR
from labeldistill_core.data.nuscenes_records import GroundTruth
from labeldistill_core.errors import DataError
from labeldistill_core.evaluation.results import ResultBox

_SHORT = {
    "trans_err": "mATE",
    "scale_err": "mASE",
    "orient_err": "mAOE",
    "vel_err": "mAVE",
    "attr_err": "mAAE",
}


@dataclass(frozen=True)
class Metrics:
    """nuScenes detection metrics; a value is NaN where a class has no such error."""

    mean_ap: float
    """mAP."""
    nds: float
    """nuScenes detection score."""
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

    def write(self, path: Path) -> None:
        """As JSON; NaN becomes null."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(json_ready(asdict(self)), indent=1) + "\n")

    def table(self) -> str:
        """For people."""
        errors = "  ".join(f"{_SHORT[k]} {v:.4f}" for k, v in self.tp_errors.items())
        lines = [
            f"mAP {self.mean_ap:.4f}  NDS {self.nds:.4f}  ({self.samples} samples)",
            errors,
            "",
            f"{'class':<21}{'truth':>7}{'boxes':>7}{'AP':>8}{'0.5 m':>8}{'1 m':>8}{'2 m':>8}"
            f"{'4 m':>8}",
        ]
        for name in CLASSES:
            counts = f"{self.truth_boxes[name]:>7}{self.predicted_boxes[name]:>7}"
            values = "".join(f"{v:8.3f}" for v in self.class_ap_at_m[name].values())
            lines.append(f"{name:<21}{counts}{self.class_ap[name]:8.3f}{values}")
        return "\n".join(lines)


def evaluate(truths: Sequence[GroundTruth], results: Mapping[str, Sequence[ResultBox]]) -> Metrics:
    """Score results on exactly the samples of the ground truth.

    A sample without results counts as one without boxes; results for other samples are left out.

    Args:
        truths: the samples to score.
        results: result boxes by sample token; see `results.result_boxes`. Their order breaks ties
            between equal scores.

    Raises:
        DataError: no sample, a token comes twice, a box is malformed, or there are too many.
    """
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.common.loaders import add_center_dist, filter_eval_boxes
    from nuscenes.eval.detection.algo import accumulate, calc_ap, calc_tp
    from nuscenes.eval.detection.constants import TP_METRICS
    from nuscenes.eval.detection.data_classes import DetectionMetrics

    by_token = {truth.sample_token: truth for truth in truths}
    if not truths or len(by_token) != len(truths):
        raise DataError("nothing to score" if not truths else "a sample is there twice")
    config = config_factory("detection_cvpr_2019")
    tables = _DevkitTables(by_token)
    boxes = {
        "truth": _truth_boxes(truths),
        "predicted": _predicted_boxes(by_token, results, config.max_boxes_per_sample),
    }
    for kind, found in boxes.items():
        if found.all:  # the devkit's filter cannot do with none
            boxes[kind] = filter_eval_boxes(
                tables, add_center_dist(tables, found), config.class_range
            )
    metrics = DetectionMetrics(config)
    for name in config.class_names:
        data = {
            distance: accumulate(
                boxes["truth"], boxes["predicted"], name, config.dist_fcn_callable, distance
            )
            for distance in config.dist_ths
        }
        for distance, matches in data.items():
            ap = calc_ap(matches, config.min_recall, config.min_precision)
            metrics.add_label_ap(name, distance, ap)
        for error in TP_METRICS:
            value = math.nan
            if error not in _undefined_errors(name):
                value = calc_tp(data[config.dist_th_tp], config.min_recall, error)
            metrics.add_label_tp(name, error, value)
    return Metrics(
        mean_ap=metrics.mean_ap,
        nds=metrics.nd_score,
        tp_errors={k: float(v) for k, v in metrics.tp_errors.items()},
        class_ap={name: float(metrics.mean_dist_aps[name]) for name in CLASSES},
        class_ap_at_m={
            name: {float(d): float(metrics.get_label_ap(name, d)) for d in config.dist_ths}
            for name in CLASSES
        },
        class_tp_errors={
            name: {e: float(metrics.get_label_tp(name, e)) for e in TP_METRICS} for name in CLASSES
        },
        truth_boxes=_count(boxes["truth"]),
        predicted_boxes=_count(boxes["predicted"]),
        samples=len(truths),
    )


def json_ready(value: Any) -> Any:
    """Plain JSON: keys as text, null for a number that is not finite."""
    if isinstance(value, dict):
        return {str(k): json_ready(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _undefined_errors(class_name: str) -> tuple[str, ...]:
    """Errors that nuScenes does not define: cones look alike from all sides, barriers stay."""
    if class_name == "traffic_cone":
        return ("attr_err", "vel_err", "orient_err")
    return ("attr_err", "vel_err") if class_name == "barrier" else ()


class _DevkitTables:
    """What the devkit's filters ask of a `NuScenes` object, answered from ground truth."""

    def __init__(self, truths: Mapping[str, GroundTruth]) -> None:
        self._truths = truths

    def get(self, table: str, token: str) -> dict[str, Any]:
        name, _, index = token.partition("/")
        truth = self._truths[name]
        if table == "sample":
            racks = [f"{name}/{i}" for i in range(len(truth.bicycle_racks))]
            return {"data": {LIDAR: name}, "anns": racks}
        if table == "sample_data":
            return {"ego_pose_token": name}
        if table == "ego_pose":
            return {"translation": truth.fixed_from_ego.translation.tolist()}
        x, y, z, length, width, height, yaw = truth.bicycle_racks[int(index)].tolist()
        return {
            "category_name": "static_object.bicycle_rack",
            "translation": [x, y, z],
            "size": [width, length, height],
            "rotation": [math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)],
        }


def _truth_boxes(truths: Sequence[GroundTruth]) -> Any:
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.detection.data_classes import DetectionBox

    boxes = EvalBoxes()
    for truth in truths:
        rows: Boxes3D = truth.boxes
        found = []
        for i, (row, label) in enumerate(
            zip(rows.values.tolist(), rows.labels.tolist(), strict=True)
        ):
            x, y, z, length, width, height, yaw, vx, vy = row
            found.append(
                DetectionBox(
                    sample_token=truth.sample_token,
                    translation=(x, y, z),
                    size=(width, length, height),
                    rotation=(math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)),
                    velocity=(vx, vy),
                    num_pts=truth.num_lidar_pts[i] + truth.num_radar_pts[i],
                    detection_name=CLASSES[label],
                    attribute_name=truth.attributes[i],
                )
            )
        boxes.add_boxes(truth.sample_token, found)
    return boxes


def _predicted_boxes(
    truths: Mapping[str, GroundTruth], results: Mapping[str, Sequence[ResultBox]], most: int
) -> Any:
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.detection.data_classes import DetectionBox

    boxes = EvalBoxes()
    for token in [*(t for t in results if t in truths), *(t for t in truths if t not in results)]:
        found = results.get(token, [])
        if len(found) > most:
            raise DataError(f"sample {token} has {len(found)} boxes; at most {most} are allowed")
        try:
            parsed = [DetectionBox.deserialize(box) for box in found]
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"a result box of sample {token} is malformed: {error!r}") from error
        if not all(np.isfinite([*b.translation, *b.size]).all() for b in parsed):
            raise DataError(f"a result box of sample {token} has an infinite centre or size")
        boxes.add_boxes(token, parsed)
    return boxes


def _count(boxes: Any) -> dict[str, int]:
    names = [box.detection_name for box in boxes.all]
    return {name: names.count(name) for name in CLASSES}
