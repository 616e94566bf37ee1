# SPDX-License-Identifier: Apache-2.0
"""One scene driven, seen by all sensors, and written as files and table rows in nuScenes form."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from labeldistill_core.cameras import CameraCalibration, CameraPose
from labeldistill_core.data.tables.writing import Row, Rows, SceneRows, token
from labeldistill_core.files import write_whole
from labeldistill_core.frames import Array
from labeldistill_core.synthetic.actors import Actor
from labeldistill_core.synthetic.camera import take_picture
from labeldistill_core.synthetic.lidar import scan
from labeldistill_core.synthetic.meshes import Floats
from labeldistill_core.synthetic.raycast import RaycastingScene, Snapshot
from labeldistill_core.synthetic.rig import (
    CAMERA_PERIOD_S,
    CAMERA_PHASES_S,
    KEY_FRAME_PERIOD_S,
    LIDAR,
    LIDAR_PERIOD_S,
    camera_calibrations,
    ego_from_lidar,
)
from labeldistill_core.synthetic.visibility import visible_shares
from labeldistill_core.synthetic.world import World

ANNOTATED_M = 75.0
"""Objects farther from the vehicle are not annotated."""

_UNSEEN_KEY_FRAMES = 2
"""An object is annotated so long before the first and after the last scan that touches it."""

_FIRST_STAMP_US = 1_600_000_000_000_000
_SCENE_APART_US = 1_000_000_000
_JPEG_QUALITY = 88
_MAP_PX_PER_M = 10  # as nuScenes' own masks
_VISIBILITY_EDGES = (0.4, 0.6, 0.8)

Sweeps = Literal["none", "lidar", "all"]
"""Sensors that are also recorded between key frames."""


@dataclass(frozen=True)
class SceneSettings:
    """What determines a scene, byte for byte."""

    name: str
    """Of the scene, from the split lists of nuScenes."""
    index: int
    """Number of the scene; sets the seed of its random stream and its time stamps."""
    seed: int
    """Seed of the data set; the stream of a scene is drawn from it and the index."""
    key_frames: int
    """How many key frames the scene has, at 2 Hz."""
    image_size_px: tuple[int, int]
    """Width and height of the images, in pixels."""
    sweeps: Sweeps
    """Sensors whose frames between key frames are recorded too."""


def record_scene(settings: SceneSettings, root: Path) -> Rows:
    """Drive a scene, write its images, scans and map, and return its rows of the tables.

    Args:
        settings: of the scene.
        root: data root.
    """
    return _Recording(settings, root).run()


class _Recording:
    def __init__(self, settings: SceneSettings, root: Path) -> None:
        self._settings, self._root = settings, root
        # Seed and index together: a scene is the same whatever other scenes are written, and in
        # which order or process.
        self._rng = np.random.default_rng([settings.seed, settings.index])
        duration_s = (settings.key_frames - 1) * KEY_FRAME_PERIOD_S
        self._world = World.sample(self._rng, duration_s)
        self._geometry = RaycastingScene(self._world)
        self._cameras = camera_calibrations(*settings.image_size_px)
        self._start_us = _FIRST_STAMP_US + settings.index * _SCENE_APART_US
        self._rows = SceneRows(settings.name, settings.seed)

    def run(self) -> Rows:
        settings, rows = self._settings, self._rows
        samples = rows.add_samples(
            self._stamp_us(k * KEY_FRAME_PERIOD_S) for k in range(settings.key_frames)
        )
        rows.describe(
            samples,
            self._write_map(),
            description="A street of the synthetic world.",
            vehicle="synthetic",
            date_captured="2020-09-13",
            location="synthetic-street",
        )
        for name, camera in self._cameras.items():
            rows.mount(name, camera.ego_from_camera, camera.intrinsics_px)
        rows.mount(LIDAR, ego_from_lidar(), None)
        for k, sample in enumerate(samples):
            self._annotate(k, sample, self._record_lidar(k, sample))
            self._record_cameras(k, sample)
        rows.link_data()
        self._link_annotations()
        return rows.tables

    def _stamp_us(self, time_s: float) -> int:
        return self._start_us + round(time_s * 1e6)

    def _times(
        self, k: int, phase_s: float, period_s: float, sweeps: bool
    ) -> list[tuple[float, bool]]:
        """Times of a sensor from a key frame to before the next, and whether it is the key's."""
        key_s = k * KEY_FRAME_PERIOD_S + phase_s
        last = k == self._settings.key_frames - 1
        # Behind the last key frame no sweep is recorded, as in nuScenes.
        count = round(KEY_FRAME_PERIOD_S / period_s) if sweeps and not last else 1
        return [(key_s + i * period_s, i == 0) for i in range(count)]

    def _record_lidar(self, k: int, sample: str) -> tuple[Snapshot, Floats]:
        sweeps = self._settings.sweeps != "none"
        for time_s, is_key in self._times(k, 0.0, LIDAR_PERIOD_S, sweeps):
            snapshot = self._geometry.at(time_s)
            points = scan(snapshot, time_s, self._noise(LIDAR, self._stamp_us(time_s)))
            self._write(LIDAR, sample, time_s, is_key, "pcd.bin", points.tobytes())
            if is_key:
                key = snapshot, points
        return key

    def _record_cameras(self, k: int, sample: str) -> None:
        sweeps = self._settings.sweeps == "all"
        for name, calibration in self._cameras.items():
            for time_s, is_key in self._times(k, CAMERA_PHASES_S[name], CAMERA_PERIOD_S, sweeps):
                pose = CameraPose(calibration, self._world.map_from_ego(time_s))
                noise = self._noise(name, self._stamp_us(time_s))
                picture = take_picture(self._geometry.at(time_s), pose, self._world.light, noise)
                jpeg = io.BytesIO()
                Image.fromarray(picture.image).save(jpeg, "JPEG", quality=_JPEG_QUALITY)
                self._write(name, sample, time_s, is_key, "jpg", jpeg.getvalue(), calibration)

    def _noise(self, sensor: str, stamp_us: int) -> np.random.Generator:
        # A stream for each frame: a key frame looks the same with and without sweeps around it.
        seed = int(token(self._settings.seed, sensor, stamp_us)[:12], 16)
        return np.random.default_rng(seed)

    def _write(
        self,
        sensor: str,
        sample: str,
        time_s: float,
        is_key: bool,
        ending: str,
        data: bytes,
        camera: CameraCalibration | None = None,
    ) -> None:
        stamp = self._stamp_us(time_s)
        folder = f"{'samples' if is_key else 'sweeps'}/{sensor}"
        # The pattern of nuScenes, out of which tools read sensor and time.
        name = f"{folder}/{self._settings.name}__{sensor}__{stamp}.{ending}"
        write_whole(self._root / name, data)
        size_px = (camera.width_px, camera.height_px) if camera else (0, 0)
        ego = self._world.map_from_ego(time_s)
        self._rows.add_file(sensor, sample, stamp, ego, name, is_key=is_key, size_px=size_px)

    def _annotate(self, k: int, sample: str, key: tuple[Snapshot, Floats]) -> None:
        snapshot, points = key
        time_s = k * KEY_FRAME_PERIOD_S
        ego = self._world.map_from_ego(time_s)
        scanned = (ego @ ego_from_lidar()).apply(points[:, :3])
        centers = snapshot.poses + [*self._geometry.origin, 0.0]
        # Classes are scored to 50 m at most; beyond the annotated radius an object is a few pixels.
        near = np.hypot(*(centers[:, :2] - ego.translation[:2]).T) < ANNOTATED_M
        indices = np.flatnonzero(near)
        shares = visible_shares(snapshot, indices, ego, self._cameras.values())
        for index, share in zip(indices, shares, strict=True):
            actor, pose = self._world.actors[index], centers[index]
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

    def _link_annotations(self) -> None:
        """Chain each instance, from just before the first to just after the last scan on it."""
        by_instance: dict[str, list[Row]] = {}
        for row in self._rows.tables["sample_annotation"]:
            by_instance.setdefault(row["instance_token"], []).append(row)
        categories = {}
        for index, actor in enumerate(self._world.actors):
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

    def _write_map(self) -> str:
        """The street as a mask, in nuScenes' orientation (north up, origin bottom left)."""
        road = self._world.road
        s = np.arange(0.0, road.length_m, 1.0)
        left, right = (road.place(s, np.full(len(s), d))[0] for d in _both(road.half_width_m))
        outline = np.concatenate([left, right[::-1]]) * _MAP_PX_PER_M
        width, height = (np.ceil(outline.max(axis=0)) + 50 * _MAP_PX_PER_M).astype(int).tolist()
        mask = Image.new("1", (width, height))
        ImageDraw.Draw(mask).polygon([(x, height - y) for x, y in outline.tolist()], fill=1)
        name = f"maps/{self._rows.token('map')}.png"
        png = io.BytesIO()
        mask.save(png, "PNG")
        write_whole(self._root / name, png.getvalue())
        return name


def _both(distance: float) -> tuple[float, float]:
    return distance, -distance


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
