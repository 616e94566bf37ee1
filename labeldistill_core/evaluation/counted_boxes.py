# SPDX-License-Identifier: Apache-2.0
"""The boxes that count in the nuScenes evaluation: filtered by its rules, on both sides.

A box counts within its class's range of the vehicle; a true one if LiDAR or radar hits it; a cycle
if it stands in no bicycle rack (nuScenes detection task, "Preprocessing"). Everything comes from
`GroundTruth`, so that a rosbag can be scored without a data root.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.classes import ClassList
from labeldistill_core.data.nuscenes_records import GroundTruth
from labeldistill_core.errors import DataError
from labeldistill_core.evaluation.result_boxes import columns_in_order
from labeldistill_core.evaluation.result_columns import (
    BoxArrays,
    ResultBox,
    ResultColumns,
    check_values,
    columns_of,
    joined,
)
from labeldistill_core.names import shown

_FARTHEST_M = 1000.0
"""Nothing that is detected lies so far from the vehicle, unless it is in another frame."""
_CYCLES = ("bicycle", "motorcycle")
"""Classes that racks hide, by nuScenes' names."""

_LARGEST = 1e9
"""Of metres, metres a second and scores: far beyond it their squares and means overflow."""


@dataclass(frozen=True, eq=False)
class CountedBoxes:
    """N boxes of one side, those of a sample together."""

    boxes: BoxArrays
    """The boxes, in the frame "map"."""
    samples: NDArray[np.int64]
    """(N,) number of the sample in the list of ground truth."""
    places: NDArray[np.int64]
    """(N,) number of the box within its sample, before any was left out."""
    distances_m: NDArray[np.float64]
    """(N,) from the vehicle, on the ground, metres."""

    def __len__(self) -> int:
        """Number of boxes."""
        return len(self.samples)

    def __getitem__(self, rows: NDArray[Any]) -> CountedBoxes:
        """Some of the boxes."""
        return CountedBoxes(
            self.boxes[rows], self.samples[rows], self.places[rows], self.distances_m[rows]
        )

    def by_class(self) -> dict[str, int]:
        """Number of boxes of each class."""
        names = self.boxes.class_names
        counts = np.bincount(self.boxes.labels, minlength=len(names))
        return dict(zip(names, counts.tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class EvaluationBoxes:
    """What counts in the evaluation."""

    truths: Sequence[GroundTruth]
    """The samples."""
    truth: CountedBoxes
    """True boxes, samples in ascending order."""
    predicted: CountedBoxes
    """Predictions, samples in the order of the results: it breaks ties between equal scores."""

    @property
    def classes(self) -> ClassList:
        """What the labels of both sides count through."""
        return self.truths[0].classes

    def between(self, near_m: float, far_m: float) -> EvaluationBoxes:
        """Only boxes whose distance from the vehicle is at least `near_m` and below `far_m`."""
        both = [
            side[(near_m <= side.distances_m) & (side.distances_m < far_m)]
            for side in (self.truth, self.predicted)
        ]
        return EvaluationBoxes(self.truths, *both)


def evaluation_boxes(
    truths: Sequence[GroundTruth], results: Mapping[str, Sequence[ResultBox]]
) -> EvaluationBoxes:
    """Filter both sides by the devkit's rules (configuration `detection_cvpr_2019`).

    Ranges are those of the truth's classes; the rule on bicycle racks is for nuScenes' names alone.

    Args:
        truths: the samples, all labelled by the same classes.
        results: result boxes by sample token. Their order breaks ties between equal scores; boxes
            of other samples are left out.

    Raises:
        DataError: no sample, a token comes twice, a box is malformed, or there are too many.
    """
    # Imported here: the devkit takes seconds, which other commands need not wait for.
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.constants import ATTRIBUTE_NAMES

    numbers = {truth.sample_token: number for number, truth in enumerate(truths)}
    if not truths or len(numbers) != len(truths):
        raise DataError("nothing to score" if not truths else "a sample is there twice")
    classes = truths[0].classes
    if any(truth.classes != classes for truth in truths):
        raise DataError("the samples are labelled by different lists of classes")
    config = config_factory("detection_cvpr_2019")
    known = [token for token in results if token in numbers]
    columns = (
        results.only(known)
        if isinstance(results, ResultColumns)
        else ResultColumns(
            {token: columns_of(results[token], token, class_names=classes.names) for token in known}
        )
    )
    for name in columns.boxes.attribute_names:
        if name and name not in ATTRIBUTE_NAMES:
            raise DataError(
                f"attribute {name!r} of a result box is none of {', '.join(ATTRIBUTE_NAMES)}"
            )
    counts = {token: len(columns.columns(token)) for token in columns}
    for token, count in counts.items():
        if count > config.max_boxes_per_sample:
            raise DataError(
                f"sample {token} has {count} boxes; at most {config.max_boxes_per_sample} are "
                "allowed"
            )
    true = joined([_true_columns(truth) for truth in truths])
    truth = _side(truths, true, range(len(truths)), [len(t.boxes) for t in truths])
    predicted = _side(
        truths,
        _relabelled(columns.boxes, classes),
        [numbers[token] for token in counts],
        list(counts.values()),
    )
    _refuse_beyond("the truth: ", truth, truths)
    _refuse_beyond("", predicted, truths)
    _refuse_another_frame(predicted)
    ranges_m = np.array(classes.ranges_m)
    places = zip(truth.samples.tolist(), truth.places.tolist(), strict=True)
    each = [one.touched for one in truths]
    touched = np.array([each[sample][place] for sample, place in places], np.bool_)
    sides = []
    for side, counted in ((truth, touched), (predicted, np.ones(len(predicted), bool))):
        near = side.distances_m < ranges_m[side.boxes.labels]
        sides.append(side[near & counted & ~_in_rack(truths, side)])
    return EvaluationBoxes(truths, *sides)


def _side(
    truths: Sequence[GroundTruth], boxes: BoxArrays, numbers: Sequence[int], counts: Sequence[int]
) -> CountedBoxes:
    """Boxes of samples, so many of each, with their distance from the vehicle."""
    samples = np.repeat(np.array(numbers, np.int64), counts)
    places = np.concatenate([np.empty(0, np.int64), *(np.arange(count) for count in counts)])
    vehicles = np.array([truth.fixed_from_ego.translation for truth in truths])
    gaps = boxes.centers_m[:, :2] - vehicles[samples, :2]
    with np.errstate(over="ignore"):  # what is so far away is refused by name
        distances_m = np.sqrt((gaps * gaps).sum(axis=1))
    return CountedBoxes(boxes, samples, places, distances_m)


def _refuse_beyond(where: str, side: CountedBoxes, truths: Sequence[GroundTruth]) -> None:
    """Refuse boxes by whose numbers the errors and their means would overflow.

    Rotations are of any length. Files may have such boxes: `label` leaves out those that score low.
    """
    boxes = side.boxes
    for name, values in (
        ("translation", boxes.centers_m),
        ("size", boxes.sizes_m),
        ("velocity", boxes.velocities_m_s),
        ("detection_score", boxes.scores[:, None]),
    ):
        for row in (np.abs(values) > _LARGEST).any(axis=1).nonzero()[0][:1].tolist():
            token = truths[side.samples[row]].sample_token
            raise DataError(
                f"{where}box {side.places[row]} of sample {shown(token)} is malformed: its "
                f"`{name}` {values[row].tolist()} is beyond {_LARGEST:.0e}"
            )


def _true_columns(truth: GroundTruth) -> BoxArrays:
    codes: dict[str, int] = {}
    attributes = [codes.setdefault(name, len(codes)) for name in truth.attributes]
    labels = truth.boxes.labels.numpy()
    values = columns_in_order(truth.boxes)
    found = BoxArrays(
        values, labels, np.array(attributes, np.int64), tuple(codes), truth.classes.names
    )
    check_values("the truth: ", truth.sample_token, found)
    return found


def _relabelled(boxes: BoxArrays, classes: ClassList) -> BoxArrays:
    """The same boxes, labelled as the truth is.

    Raises:
        DataError: a box is of a class that the truth does not have.
    """
    if boxes.class_names == classes.names:
        return boxes
    positions = {name: label for label, name in enumerate(classes.names)}
    labels = np.array([positions.get(name, -1) for name in boxes.class_names], np.int64)
    if len(lost := np.flatnonzero(labels[boxes.labels] < 0)):
        raise DataError(
            f"a box is of class {shown(boxes.class_names[boxes.labels[lost[0]]])}, and the truth "
            f"has {', '.join(classes.names)}: score with the configuration of the detector"
        )
    return replace(boxes, labels=labels[boxes.labels], class_names=classes.names)


def _refuse_another_frame(predicted: CountedBoxes) -> None:
    # The median, since single boxes far away are merely wrong.
    distance = float(np.median(predicted.distances_m)) if len(predicted) else 0.0
    if distance > _FARTHEST_M:
        raise DataError(
            f"half of the boxes lie more than {distance:.0f} m from the vehicle: they must be in "
            "nuScenes' global frame, not in that of the vehicle or of a sensor"
        )


def _in_rack(truths: Sequence[GroundTruth], side: CountedBoxes) -> NDArray[np.bool_]:
    """(N,) whether a box is a cycle whose centre lies in a bicycle rack of its sample."""
    inside = np.zeros(len(side), bool)
    labels = [label for label, name in enumerate(side.boxes.class_names) if name in _CYCLES]
    cycles = np.flatnonzero(np.isin(side.boxes.labels, labels))
    for sample in np.unique(side.samples[cycles]).tolist():
        own = cycles[side.samples[cycles] == sample]
        for x, y, z, length, width, height, yaw in truths[sample].bicycle_racks.tolist():
            gaps = side.boxes.centers_m[own] - (x, y, z)
            ahead = gaps[:, 0] * math.cos(yaw) + gaps[:, 1] * math.sin(yaw)
            left = gaps[:, 1] * math.cos(yaw) - gaps[:, 0] * math.sin(yaw)
            inside[own] |= (
                (np.abs(ahead) <= length / 2)
                & (np.abs(left) <= width / 2)
                & (np.abs(gaps[:, 2]) <= height / 2)
            )
    return inside
