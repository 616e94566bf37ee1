# SPDX-License-Identifier: Apache-2.0
"""A vehicle that is not nuScenes': five cameras of three sizes, four classes in two tasks."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from labeldistill_core.classes import ClassList, ObjectClass
from labeldistill_core.config import DecodeConfig, HeadConfig
from labeldistill_core.distillation.config import LabelEncoderConfig
from labeldistill_core.presets import Preset
from tests.support.nuscenes_fixture import VERSION, write_dataroot
from tests.support.small_networks import small, small_teacher

CLASSES = ClassList(
    (
        ObjectClass("person", ("people.any",), 25.0),
        ObjectClass("auto", ("road_user.auto",), 45.0),
        ObjectClass("velo", ("road_user.velo",), 30.0),
        ObjectClass("work_site", ("thing.cone", "thing.fence"), 20.0),
    )
)
TASKS = (("auto", "velo"), ("person", "work_site"))
RADII_M2 = (4.0, 0.5)
CAMERAS = ("wide", "tele", "port", "starboard", "Stern")
SIZES_PX = {
    "wide": (192, 108), "tele": (160, 90), "port": (160, 120), "starboard": (160, 120),
    "Stern": (128, 72),
}  # fmt: skip

_RENAMED_CAMERAS = {
    "CAM_FRONT": "wide", "CAM_FRONT_RIGHT": "tele", "CAM_FRONT_LEFT": "port",
    "CAM_BACK_LEFT": "starboard", "CAM_BACK": "Stern",
}  # fmt: skip
_LEFT_OUT = "CAM_BACK_RIGHT"
_RENAMED_CATEGORIES = {
    "vehicle.car": "road_user.auto",
    "vehicle.bicycle": "road_user.velo",
    "human.pedestrian.adult": "people.any",
    "movable_object.trafficcone": "thing.cone",
    "movable_object.barrier": "thing.fence",
}


def own_head(head: HeadConfig) -> HeadConfig:
    return replace(head, tasks=TASKS, classes=CLASSES.members)


def own_preset() -> Preset:
    """Small networks for the vehicle."""
    decode = DecodeConfig(score_threshold=0.0, nms_radius_m2=RADII_M2, max_per_task=5)
    base = small()
    student = replace(base, head=own_head(base.head), decode=decode, cameras=CAMERAS)
    teacher = replace(small_teacher(), head=student.head, decode=decode)
    return Preset("own", student, teacher, LabelEncoderConfig.of(teacher, hidden_channels=8))


def write_own_dataroot(root: Path) -> Path:
    """The scenes of `nuscenes_fixture` as the vehicle would have recorded them."""
    write_dataroot(root)
    folder = root / VERSION
    tables: dict[str, list[dict[str, Any]]] = {
        file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")
    }
    of_mount = {
        mount["token"]: mount["token"].removeprefix("mount-")
        for mount in tables["calibrated_sensor"]
    }
    for name in ("sensor", "calibrated_sensor"):
        tables[name] = [row for row in tables[name] if not row["token"].endswith(_LEFT_OUT)]
    data = tables["sample_data"] = [
        row
        for row in tables["sample_data"]
        if of_mount[row["calibrated_sensor_token"]] != _LEFT_OUT
    ]
    for row in tables["sensor"]:
        row["channel"] = _RENAMED_CAMERAS.get(row["channel"], row["channel"])
    for row in tables["calibrated_sensor"]:
        if own := _RENAMED_CAMERAS.get(of_mount[row["token"]]):
            width, height = SIZES_PX[own]
            row["camera_intrinsic"] = [
                [0.8 * width, 0.0, width / 2], [0.0, 0.8 * width, height / 2], [0.0, 0.0, 1.0],
            ]  # fmt: skip
    for row in data:
        if own := _RENAMED_CAMERAS.get(of_mount[row["calibrated_sensor_token"]]):
            row["width"], row["height"] = SIZES_PX[own]
            (root / row["filename"]).write_bytes(_jpeg(row["timestamp"], SIZES_PX[own]))
    for row in tables["category"]:
        row["name"] = _RENAMED_CATEGORIES.get(row["name"], row["name"])
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
    return root


def _jpeg(seed: int, size_px: tuple[int, int]) -> bytes:
    small_picture = np.random.default_rng(seed).integers(0, 255, (6, 10, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small_picture).resize(size_px).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
