# SPDX-License-Identifier: Apache-2.0
"""A small data root in nuScenes form: two scenes of three samples, six cameras, odd boxes."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from labeldistill_core.cameras import CAMERAS

VERSION = "v1.0-test"
SCENES = ("scene-0001", "scene-0002")
WIDTH, HEIGHT = 160, 90
START_US = 1_600_000_000_000_000
SAMPLES = 3
HEADINGS_DEG = dict(zip(CAMERAS, (55, 0, -55, 110, 180, -110), strict=True))
CAMERA_LAG_US = dict(zip(CAMERAS, (-43000, -35000, -27000, -200, -10000, -19000), strict=True))
CATEGORIES = (
    "vehicle.car",
    "human.pedestrian.adult",
    "movable_object.trafficcone",
    "movable_object.barrier",
    "vehicle.bicycle",
    "static_object.bicycle_rack",
    "animal",
)
ATTRIBUTES = ("vehicle.moving", "vehicle.parked", "pedestrian.moving", "cycle.without_rider")

Table = list[dict[str, Any]]

# name: category, attribute, position ahead and left of the start (m), speed ahead (m/s),
# width length height (m), yaw (rad), LiDAR points, samples that have it
OBJECTS: dict[str, tuple[str, str, tuple[float, float], float, tuple[float, ...], float, int, Any]]
OBJECTS = {
    "car": ("vehicle.car", "vehicle.moving", (15, 3), 4.0, (1.9, 4.5, 1.6), 0.1, 40, range(3)),
    "parked": ("vehicle.car", "vehicle.parked", (9, -6), 0.0, (1.8, 4.2, 1.5), -2.9, 9, range(3)),
    "hidden": ("vehicle.car", "vehicle.parked", (20, -9), 0.0, (1.8, 4.2, 1.5), 1.5, 0, range(3)),
    "far": ("vehicle.car", "vehicle.parked", (90, 0), 0.0, (1.8, 4.2, 1.5), 0.0, 3, range(3)),
    "walker": (
        "human.pedestrian.adult",
        "pedestrian.moving",
        (12, 8),
        1.2,
        (0.6, 0.7, 1.8),
        0.3,
        12,
        range(3),
    ),
    "once": ("human.pedestrian.adult", "", (7, -4), 0.0, (0.6, 0.7, 1.8), 0.0, 5, range(1, 2)),
    "cone": ("movable_object.trafficcone", "", (6, 2), 0.0, (0.4, 0.4, 0.8), 0.0, 4, range(3)),
    "barrier": ("movable_object.barrier", "", (11, 5), 0.0, (2.0, 0.5, 1.0), 0.7, 8, range(3)),
    "cycle": (
        "vehicle.bicycle",
        "cycle.without_rider",
        (-12, 4),
        0.0,
        (0.6, 1.7, 1.2),
        0.2,
        6,
        range(3),
    ),
    "racked": (
        "vehicle.bicycle",
        "cycle.without_rider",
        (-8, -5),
        0.0,
        (0.6, 1.7, 1.2),
        1.2,
        6,
        range(3),
    ),
    "rack": (
        "static_object.bicycle_rack",
        "",
        (-8, -5.5),
        0.0,
        (2.0, 6.0, 1.4),
        0.4,
        20,
        range(3),
    ),
    "dog": ("animal", "", (5, -2), 0.0, (0.4, 0.8, 0.6), 0.0, 7, range(3)),
}


def jpeg(seed: int) -> bytes:
    small = np.random.default_rng(seed).integers(0, 255, (6, 10, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((WIDTH, HEIGHT)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def yaw_quaternion(yaw: float) -> list[float]:
    return [math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)]


def ego_at(scene: int, stamp_us: int) -> tuple[list[float], list[float]]:
    """Translation and rotation of the vehicle: 5 m/s in a slow left turn, far from the origin."""
    t = (stamp_us - START_US) * 1e-6 - 100 * scene
    position = [600.0 + 5 * t, 1600.0 + 0.3 * t * t + 50 * scene, 0.0]
    return position, yaw_quaternion(0.12 * t)


def write_dataroot(root: Path) -> Path:
    """Write tables, JPEGs, scans and placeholder maps; the devkit loads it too."""
    tables: dict[str, Table] = {
        name: [] for name in ("log", "map", "scene", "sample", "sample_data", "ego_pose")
    }
    tables |= {"sample_annotation": [], "instance": [], "calibrated_sensor": [], "sensor": []}
    tables["category"] = [
        {"token": f"category-{n}", "name": n, "description": ""} for n in CATEGORIES
    ]
    tables["attribute"] = [
        {"token": f"attribute-{n}", "name": n, "description": ""} for n in ATTRIBUTES
    ]
    tables["visibility"] = [{"token": "4", "level": "v80-100", "description": ""}]
    _write_sensors(tables)
    for scene in range(len(SCENES)):
        _write_scene(root, tables, scene)
    tables["map"].append(
        {
            "token": "map",
            "category": "semantic_prior",
            "filename": "maps/map.png",
            "log_tokens": [log["token"] for log in tables["log"]],
        }
    )
    (root / "maps").mkdir()
    Image.new("L", (10, 10)).save(root / "maps/map.png")
    folder = root / VERSION
    folder.mkdir()
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
    (folder / "splits.json").write_text(json.dumps({"everything": list(SCENES)}))
    return root


def _write_sensors(tables: dict[str, Table]) -> None:
    for name in (*CAMERAS, "LIDAR_TOP"):
        camera = name in CAMERAS
        tables["sensor"].append(
            {
                "token": f"sensor-{name}",
                "channel": name,
                "modality": "camera" if camera else "lidar",
            }
        )
        yaw = math.radians(HEADINGS_DEG.get(name, -90))
        # optical axes in the vehicle: a turn about z after x right, y down, z forward
        c, s = math.cos(yaw / 2), math.sin(yaw / 2)
        optical = [0.5 * (c + s), -0.5 * (c + s), 0.5 * (c - s), 0.5 * (s - c)]
        # (c + s k)(1 - i + j - k)/2 = ((c+s) + (-c-s) i + (c-s) j + (s-c) k)/2
        tables["calibrated_sensor"].append(
            {
                "token": f"mount-{name}",
                "sensor_token": f"sensor-{name}",
                "translation": [0.7 + math.cos(yaw), 0.5 * math.sin(yaw), 1.5],
                "rotation": optical if camera else yaw_quaternion(yaw),
                "camera_intrinsic": (
                    [[126.6, 0.0, 81.6], [0.0, 126.6, 49.1], [0.0, 0.0, 1.0]] if camera else []
                ),
            }
        )


def _write_scene(root: Path, tables: dict[str, Table], scene: int) -> None:
    tokens = [f"sample-{scene}-{i}" for i in range(SAMPLES)]
    start_us = START_US + scene * 100_000_000
    tables["log"].append(
        {
            "token": f"log-{scene}",
            "logfile": "",
            "vehicle": "v",
            "date_captured": "2020-09-13",
            "location": "nowhere",
        }
    )
    tables["scene"].append(
        {
            "token": f"scene-{scene}",
            "log_token": f"log-{scene}",
            "name": SCENES[scene],
            "description": "",
            "nbr_samples": SAMPLES,
            "first_sample_token": tokens[0],
            "last_sample_token": tokens[-1],
        }
    )
    for i, token in enumerate(tokens):
        stamp_us = start_us + 500_000 * i
        tables["sample"].append(
            {
                "token": token,
                "timestamp": stamp_us,
                "scene_token": f"scene-{scene}",
                "prev": tokens[i - 1] if i else "",
                "next": tokens[i + 1] if i + 1 < SAMPLES else "",
            }
        )
        for name in (*CAMERAS, "LIDAR_TOP"):
            lag_us = CAMERA_LAG_US.get(name, 0)
            _write_data(root, tables, scene, token, name, stamp_us + lag_us, key=True)
            if i + 1 < SAMPLES and name in CAMERAS:
                _write_data(root, tables, scene, token, name, stamp_us + lag_us + 250_000)
    _write_objects(tables, scene, tokens, start_us)


def _write_data(
    root: Path,
    tables: dict[str, Table],
    scene: int,
    sample: str,
    name: str,
    stamp_us: int,
    key: bool = False,
) -> None:
    camera = name in CAMERAS
    suffix = "jpg" if camera else "pcd.bin"
    path = f"{'samples' if key else 'sweeps'}/{name}/{SCENES[scene]}__{stamp_us}.{suffix}"
    token = f"data-{name}-{stamp_us}"
    position, rotation = ego_at(scene, stamp_us)
    tables["ego_pose"].append(
        {"token": token, "timestamp": stamp_us, "translation": position, "rotation": rotation}
    )
    tables["sample_data"].append(
        {
            "token": token,
            "sample_token": sample,
            "ego_pose_token": token,
            "calibrated_sensor_token": f"mount-{name}",
            "timestamp": stamp_us,
            "fileformat": suffix.split(".")[0],
            "is_key_frame": key,
            "height": HEIGHT if camera else 0,
            "width": WIDTH if camera else 0,
            "filename": path,
            "prev": "",
            "next": "",
        }
    )
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    scan = np.random.default_rng(stamp_us).normal(size=(20, 5)).astype(np.float32)
    (root / path).write_bytes(jpeg(stamp_us % 2**32) if camera else scan.tobytes())


def _write_objects(tables: dict[str, Table], scene: int, samples: list[str], start: int) -> None:
    origin, _ = ego_at(scene, start)
    for name, (
        category,
        attribute,
        (ahead, left),
        speed,
        size,
        yaw,
        points,
        when,
    ) in OBJECTS.items():
        instance = f"instance-{name}-{scene}"
        tokens = [f"annotation-{name}-{scene}-{i}" for i in when]
        tables["instance"].append(
            {
                "token": instance,
                "category_token": f"category-{category}",
                "nbr_annotations": len(tokens),
                "first_annotation_token": tokens[0],
                "last_annotation_token": tokens[-1],
            }
        )
        for n, i in enumerate(when):
            moved = ahead + speed * 0.5 * i
            tables["sample_annotation"].append(
                {
                    "token": tokens[n],
                    "sample_token": samples[i],
                    "instance_token": instance,
                    "visibility_token": "4" if name == "car" else "",
                    "attribute_tokens": [f"attribute-{attribute}"] if attribute else [],
                    "translation": [origin[0] + moved, origin[1] + left, size[2] / 2],
                    "size": list(size),
                    "rotation": yaw_quaternion(yaw),
                    "prev": tokens[n - 1] if n else "",
                    "next": tokens[n + 1] if n + 1 < len(tokens) else "",
                    "num_lidar_pts": points,
                    "num_radar_pts": 0,
                }
            )
