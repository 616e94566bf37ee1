# SPDX-License-Identifier: Apache-2.0
"""Rows of `sample_annotation.json` for boxes that come from elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.data.tables.writing import Row
from labeldistill_core.frames import Array, Transform

UNKNOWN_POINTS = -1
"""Number of points in a box where there is no scan; metrics then count the box."""

Points = NDArray[np.floating[Any]]


def annotation_row(
    own: str,
    sample: str,
    instance: str,
    fixed_from_box: Transform,
    size_m: tuple[float, float, float],
    points: Points | None,
) -> Row:
    """A box of a sample, not yet linked with those of its instance.

    Args:
        own: its token.
        sample: token of the sample.
        instance: token of the instance.
        fixed_from_box: centre and heading in the map.
        size_m: length, width, height.
        points: (P, 3) the sample's scan in the map, metres; None without one.
    """
    length, width, height = size_m
    count = UNKNOWN_POINTS if points is None else points_inside(points, fixed_from_box, size_m)
    return {
        "token": own,
        "sample_token": sample,
        "instance_token": instance,
        "visibility_token": "",
        "attribute_tokens": [],
        "translation": fixed_from_box.translation.tolist(),
        "size": [width, length, height],  # the order of nuScenes
        "rotation": fixed_from_box.quaternion.tolist(),
        "prev": "",
        "next": "",
        "num_lidar_pts": count,
        "num_radar_pts": 0,
    }


def points_inside(
    points: Points, frame_from_box: Transform, size_m: tuple[float, float, float]
) -> int:
    """How many points (P, 3), metres, lie in a box of length, width, height."""
    offset: Array = points - frame_from_box.translation
    # A cut along one axis first: most points of a scan drop out before anything is turned.
    offset = offset[np.abs(offset[:, 0]) <= np.linalg.norm(size_m) / 2]
    local = offset @ frame_from_box.rotation
    return int((np.abs(local) <= np.array(size_m) / 2).all(axis=1).sum())
