# SPDX-License-Identifier: Apache-2.0
"""Which boxes are shown."""

from __future__ import annotations

import math

import numpy as np
import torch

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.frames import Transform
from labeldistill_core.runtime.detector import Detections
from labeldistill_ros.sets.selection import Selection

OUTPUT_FROM_FIXED = Transform("out", "map", np.eye(3), np.array([100.0, 0.0, 0.0]))


def detections(x_m: list[float], scores: list[float], labels: list[int]) -> Detections:
    values = torch.zeros(len(x_m), 9)
    values[:, 0], values[:, 3:6] = torch.tensor(x_m), 1.0
    boxes = Boxes3D("ego", values, torch.tensor(labels), torch.tensor(scores))
    return Detections(0, boxes, Transform.identity("map", "ego"), 0)


def shown(selection: Selection, found: Detections) -> list[float]:
    boxes, _ = selection.apply(found, OUTPUT_FROM_FIXED)
    assert boxes.frame == "out"
    return [round(score, 3) for score in boxes.scores.tolist()]


def test_best_first_above_the_threshold_and_not_too_many() -> None:
    found = detections([1, 2, 3, 4], [0.2, 0.9, 0.5, 0.6], [0, 0, 0, 0])
    assert shown(Selection(0.3, 2), found) == [0.9, 0.6]
    assert shown(Selection(0.3, 9), found) == [0.9, 0.6, 0.5]


def test_a_class_has_its_own_threshold_or_the_common_one() -> None:
    found = detections([1, 2, 3], [0.4, 0.4, 0.4], [0, 1, 2])
    selection = Selection(0.3, 9, class_thresholds=(0.5, math.nan, 0.4))
    boxes, _ = selection.apply(found, OUTPUT_FROM_FIXED)
    assert boxes.labels.tolist() == [1, 2]


def test_the_range_is_measured_from_the_vehicle_not_in_the_output_frame() -> None:
    found = detections([10, 60], [0.5, 0.6], [0, 0])
    assert shown(Selection(0.0, 9, max_range_m=50.0), found) == [0.5]


def test_what_cannot_be_shown_is_counted_and_does_not_push_others_out() -> None:
    found = detections([1, math.nan, 3], [0.4, 0.9, 0.3], [0, 0, 0])
    boxes, unusable = Selection(0.0, 2).apply(found, OUTPUT_FROM_FIXED)
    assert unusable == 1
    assert len(boxes) == 2
