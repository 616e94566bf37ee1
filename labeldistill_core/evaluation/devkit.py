# SPDX-License-Identifier: Apache-2.0
"""Ground truth and result boxes as the devkit's evaluation wants them, filtered by its rules.

The devkit asks a data set for bicycle racks and poses; here `GroundTruth` answers, so that a
rosbag can be scored without a data root.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.classes import CLASSES
from labeldistill_core.data.nuscenes import LIDAR
from labeldistill_core.data.nuscenes_records import GroundTruth
from labeldistill_core.errors import DataError
from labeldistill_core.evaluation.result_boxes import ResultBox

_FARTHEST_M = 1000.0
"""Nothing that is detected lies so far from the vehicle, unless it is in another frame."""


@dataclass(frozen=True, eq=False)
class EvaluationBoxes:
    """What counts in the evaluation, as the devkit's `EvalBoxes`."""

    truth: Any
    """Within the class's range, hit by LiDAR or radar, no cycle in a rack."""
    predicted: Any
    """Within the class's range, no cycle in a rack."""
    origin: Mapping[int, tuple[GroundTruth, int]]
    """By `id` of a box of `truth`: its sample, and its index there."""

    def between(self, near_m: float, far_m: float) -> EvaluationBoxes:
        """Only boxes whose distance from the vehicle is at least `near_m` and below `far_m`."""
        from nuscenes.eval.common.data_classes import EvalBoxes

        both = []
        for boxes in (self.truth, self.predicted):
            chosen = EvalBoxes()
            for token in boxes.sample_tokens:
                found = [b for b in boxes[token] if near_m <= b.ego_dist < far_m]
                chosen.add_boxes(token, found)
            both.append(chosen)
        return EvaluationBoxes(both[0], both[1], self.origin)


def evaluation_boxes(
    truths: Sequence[GroundTruth], results: Mapping[str, Sequence[ResultBox]]
) -> EvaluationBoxes:
    """Filter both by the devkit's rules (configuration `detection_cvpr_2019`).

    Args:
        truths: the samples.
        results: result boxes by sample token. Their order breaks ties between equal scores; boxes
            of other samples are left out.

    Raises:
        DataError: no sample, a token comes twice, a box is malformed, or there are too many.
    """
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.common.loaders import add_center_dist, filter_eval_boxes

    by_token = {truth.sample_token: truth for truth in truths}
    if not truths or len(by_token) != len(truths):
        raise DataError("nothing to score" if not truths else "a sample is there twice")
    config = config_factory("detection_cvpr_2019")
    tables = _DevkitTables(by_token)
    truth_boxes, origin = _truth_boxes(truths)
    both = [truth_boxes, _predicted_boxes(by_token, results, config.max_boxes_per_sample)]
    for i, found in enumerate(both):
        if found.all:  # the devkit's filter cannot do with none
            add_center_dist(tables, found)
            # True boxes come from the tables and are in the map's frame.
            if i:
                _refuse_another_frame(found)
            both[i] = filter_eval_boxes(tables, found, config.class_range)
    return EvaluationBoxes(both[0], both[1], origin)


def _refuse_another_frame(predicted: Any) -> None:
    # The median, since single boxes far away are merely wrong.
    distance = float(np.median([box.ego_dist for box in predicted.all]))
    if distance > _FARTHEST_M:
        raise DataError(
            f"half of the boxes lie more than {distance:.0f} m from the vehicle: they must be in "
            "nuScenes' global frame, not in that of the vehicle or of a sensor"
        )


class _DevkitTables:
    """What the devkit's filters ask of a `NuScenes` object, answered from ground truth."""

    def __init__(self, truths: Mapping[str, GroundTruth]) -> None:
        self._truths = truths

    def get(self, table: str, token: str) -> dict[str, Any]:
        # Tokens here are a sample's own, and a number behind a slash for each of its racks.
        name, _, index = token.partition("/")
        truth = self._truths[name]
        if table == "sample":
            # The filter looks up bicycle racks among a sample's annotations; nothing else is asked
            # of them.
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
            # Upright, as all boxes here: a turn about z alone.
            "rotation": [math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)],
        }


def _truth_boxes(
    truths: Sequence[GroundTruth],
) -> tuple[Any, dict[int, tuple[GroundTruth, int]]]:
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.detection.data_classes import DetectionBox

    # By identity, since the devkit's boxes carry no token and its filters drop some of them.
    boxes, origin = EvalBoxes(), {}
    for truth in truths:
        rows: Boxes3D = truth.boxes
        found = []
        for i, (row, label) in enumerate(
            zip(rows.values.tolist(), rows.labels.tolist(), strict=True)
        ):
            x, y, z, length, width, height, yaw, vx, vy = row
            if min(length, width, height) <= 0:
                raise DataError(
                    f"a true box of sample {truth.sample_token} is malformed: its size is not "
                    "above 0"
                )
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
        origin.update({id(box): (truth, i) for i, box in enumerate(found)})
    return boxes, origin


def _predicted_boxes(
    truths: Mapping[str, GroundTruth], results: Mapping[str, Sequence[ResultBox]], most: int
) -> Any:
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.detection.data_classes import DetectionBox

    boxes = EvalBoxes()
    # The order of the results first: equal scores are ranked in the order in which they were added.
    for token in [*(t for t in results if t in truths), *(t for t in truths if t not in results)]:
        found = results.get(token, [])
        if len(found) > most:
            raise DataError(f"sample {token} has {len(found)} boxes; at most {most} are allowed")
        for name in {box.get("detection_name") for box in found if isinstance(box, dict)}:
            if name not in CLASSES:
                raise DataError(
                    f"a result box of sample {token} is malformed: class {name!r} is none of "
                    f"{', '.join(CLASSES)}"
                )
        try:
            parsed = [DetectionBox.deserialize(box) for box in found]
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"a result box of sample {token} is malformed: {error!r}") from error
        if not all(np.isfinite([*b.translation, *b.size]).all() for b in parsed):
            raise DataError(f"a result box of sample {token} has an infinite centre or size")
        if any(min(box.size) <= 0 for box in parsed):
            raise DataError(f"a result box of sample {token} is malformed: its size is not above 0")
        boxes.add_boxes(token, parsed)
    return boxes
