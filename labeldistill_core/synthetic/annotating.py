# SPDX-License-Identifier: Apache-2.0
"""What an annotator who sees the scans would write of a scene."""

from __future__ import annotations

import numpy as np

from labeldistill_core.data.tables.writing import Row, SceneRows, token
from labeldistill_core.frames import Array
from labeldistill_core.synthetic.actors import Actor
from labeldistill_core.synthetic.driven import DrivenScene
from labeldistill_core.synthetic.meshes import Floats
from labeldistill_core.synthetic.rig import KEY_FRAME_PERIOD_S
from labeldistill_core.synthetic.visibility import visible_shares

ANNOTATED_M = 75.0
"""Objects farther from the vehicle are not annotated."""

_UNSEEN_KEY_FRAMES = 2
"""An object is annotated so long before the first and after the last scan that touches it."""

_VISIBILITY_EDGES = (0.4, 0.6, 0.8)


class Annotator:
    """Annotates key frames in the order of time."""

    def __init__(self, driven: DrivenScene, rows: SceneRows) -> None:
        """Begin without boxes; they go into the rows."""
        self._driven, self._rows = driven, rows

    def annotate(self, k: int, sample: str, points: Floats) -> None:
        """Add the boxes of a key frame, given its scan (P, 5) in the LiDAR's frame."""
        driven = self._driven
        time_s = k * KEY_FRAME_PERIOD_S
        snapshot, ego = driven.at(time_s), driven.map_from_ego(time_s)
        scanned = (ego @ driven.rig.ego_from_lidar).apply(points[:, :3])
        centers = snapshot.poses + [*driven.origin, 0.0]
        # Classes are scored to 50 m at most; beyond the annotated radius an object is a few pixels.
        near = np.hypot(*(centers[:, :2] - ego.translation[:2]).T) < ANNOTATED_M
        indices = np.flatnonzero(near)
        shares = visible_shares(snapshot, indices, ego, driven.rig.calibrations.values())
        for index, share in zip(indices, shares, strict=True):
            actor, pose = driven.actors[index], centers[index]
            visibility = 1 + int(np.searchsorted(_VISIBILITY_EDGES, share, side="right"))
            self._rows.tables["sample_annotation"].append(
                {
                    "token": self._rows.token("annotation", k, index),
                    "sample_token": sample,
                    "instance_token": self._rows.token("instance", index),
                    "visibility_token": str(visibility),
                    "attribute_tokens": _attribute_tokens(actor, time_s),
                    "translation": pose[:3].tolist(),
                    # nuScenes lists width, length, height.
                    "size": [actor.size_m[1], actor.size_m[0], actor.size_m[2]],
                    "rotation": [float(np.cos(pose[3] / 2)), 0.0, 0.0, float(np.sin(pose[3] / 2))],
                    "prev": "",
                    "next": "",
                    "num_lidar_pts": _points_inside(scanned, actor, pose),
                    "num_radar_pts": 0,
                }
            )

    def finish(self) -> None:
        """Chain each instance, from just before the first to just after the last scan on it."""
        by_instance: dict[str, list[Row]] = {}
        for row in self._rows.tables["sample_annotation"]:
            by_instance.setdefault(row["instance_token"], []).append(row)
        categories = {}
        for index, actor in enumerate(self._driven.actors):
            identity = self._rows.token("instance", index)
            # An annotator sees the scans: objects that no scan touches are unknown to him, and
            # around the first and last scan on an object he knows a little more.
            rows = by_instance.pop(identity, [])
            hit = [k for k, row in enumerate(rows) if row["num_lidar_pts"]]
            if not hit:
                continue
            by_instance[identity] = rows[
                max(hit[0] - _UNSEEN_KEY_FRAMES, 0) : hit[-1] + 1 + _UNSEEN_KEY_FRAMES
            ]
            categories[identity] = token("category", actor.class_name)
        self._rows.tables["sample_annotation"] = [r for rows in by_instance.values() for r in rows]
        self._rows.link_annotations(categories)


def _points_inside(points: Array, actor: Actor, pose: Array) -> int:
    length, width, height = actor.size_m
    offset = points - pose[:3]
    # A cut along one axis first: most points of a scan drop out before anything is turned.
    offset = offset[np.abs(offset[:, 0]) <= np.hypot(length, width) / 2]
    c, s = np.cos(pose[3]), np.sin(pose[3])
    inside = np.abs(offset[:, 0] * c + offset[:, 1] * s) <= length / 2
    inside &= np.abs(offset[:, 1] * c - offset[:, 0] * s) <= width / 2
    inside &= np.abs(offset[:, 2]) <= height / 2
    return int(inside.sum())


def _attribute_tokens(actor: Actor, time_s: float) -> list[str]:
    speed = (actor.motion.distance_m(time_s + 0.1) - actor.motion.distance_m(time_s - 0.1)) / 0.2
    name = attribute(actor, moving=abs(speed) > 0.2)
    return [token("attribute", name)] if name else []


def attribute(actor: Actor, moving: bool) -> str:
    """Name of the nuScenes attribute; empty for classes that have none."""
    if actor.class_name in ("barrier", "traffic_cone"):
        return ""
    if actor.class_name == "pedestrian":
        return "pedestrian.moving" if moving else "pedestrian.standing"
    if actor.class_name in ("motorcycle", "bicycle"):
        return "cycle.without_rider" if actor.parked else "cycle.with_rider"
    if moving:
        return "vehicle.moving"
    return "vehicle.parked" if actor.parked else "vehicle.stopped"
