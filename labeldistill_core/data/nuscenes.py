# SPDX-License-Identifier: Apache-2.0
"""nuScenes tables: samples, sensor records, poses and ground truth, read without the devkit.

A data root may be partial: the tables then speak of files that are not there, and `SensorRecord`
says which. Frames: "map" is nuScenes' global frame, "ego" the vehicle, a sensor's frame carries
the sensor's name.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labeldistill_core.boxes import BOX_FIELDS, Boxes3D
from labeldistill_core.cameras import EGO_FRAME, FIXED_FRAME, FrameSet
from labeldistill_core.classes import CATEGORY_TO_CLASS, CLASSES, UNSCORED_CATEGORIES
from labeldistill_core.data.nuscenes_records import GroundTruth, SensorRecord
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Transform

_LOG = logging.getLogger(__name__)

LIDAR = "LIDAR_TOP"
_LONGEST_TURN_NS = 75_000_000
"""The LiDAR turns in 50 ms."""
_BICYCLE_RACK = "static_object.bicycle_rack"
_MAX_VELOCITY_GAP_S = 1.5
_TABLES = (
    "attribute",
    "calibrated_sensor",
    "category",
    "ego_pose",
    "instance",
    "sample",
    "sample_annotation",
    "sample_data",
    "scene",
    "sensor",
    "visibility",
)

Record = dict[str, Any]


class NuScenesTables:
    """The tables of one version under one data root."""

    def __init__(self, dataroot: Path, version: str) -> None:
        """Read the tables.

        Args:
            dataroot: folder with the version's folder, `samples/` and `sweeps/`.
            version: name of the folder with the tables, such as `v1.0-mini`.

        Raises:
            DataError: there are no such tables; says which versions there are.
        """
        self.dataroot, self.version = Path(dataroot), version
        folder = self.dataroot / version
        if not (folder / "scene.json").is_file():
            raise DataError(_no_tables(self.dataroot, version))
        tables = {name: _read_table(folder / f"{name}.json") for name in _TABLES}
        self._records = {
            name: {record["token"]: record for record in rows} for name, rows in tables.items()
        }
        self._scenes = {record["name"]: record for record in tables["scene"]}
        self._mountings: dict[str, Transform] = {}
        names = {str(record["name"]) for record in tables["category"]}
        if unknown := names - CATEGORY_TO_CLASS.keys() - UNSCORED_CATEGORIES:
            _LOG.warning(
                "%s: %s is no nuScenes category; such boxes are left out unless they are renamed",
                folder / "category.json",
                ", ".join(sorted(unknown)),
            )

    @property
    def scene_names(self) -> tuple[str, ...]:
        """In the order of the table."""
        return tuple(self._scenes)

    def scene_of(self, sample_token: str) -> str:
        """Name of the scene that a sample belongs to."""
        token = self._get("sample", sample_token)["scene_token"]
        return str(self._get("scene", token)["name"])

    def samples(self, scene_name: str) -> tuple[str, ...]:
        """Tokens of a scene's samples in the order of time.

        Raises:
            DataError: there is no such scene; lists those there are.
        """
        if scene_name not in self._scenes:
            names = self.scene_names
            known = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if names[20:] else "")
            raise DataError(
                f"no scene {scene_name!r} in {self.dataroot / self.version}; there are: {known}"
            )
        tokens, token = [], self._scenes[scene_name]["first_sample_token"]
        while token:
            tokens.append(token)
            token = self._get("sample", token)["next"]
        return tuple(tokens)

    def stamp_ns(self, sample_token: str) -> int:
        """Time of a sample."""
        return int(self._get("sample", sample_token)["timestamp"]) * 1000

    def sensors(self, sample_token: str) -> dict[str, SensorRecord]:
        """Key frames of a sample by the sensor's name."""
        records = map(self._sensor_record, self._key_frames(sample_token))
        return {record.channel: record for record in records}

    def cameras(self, sample_token: str) -> dict[str, SensorRecord]:
        """Key frames of a sample's cameras by name, whether their files are there or not."""
        return {n: r for n, r in self.sensors(sample_token).items() if r.modality == "camera"}

    def sensor_data(
        self, scene_name: str, *, modality: str | None = None, sweeps: bool = True
    ) -> list[SensorRecord]:
        """Records of a scene in the order of time.

        Args:
            scene_name: of the scene.
            modality: camera, lidar or radar; all of them when None.
            sweeps: also what was taken between the samples.
        """
        records = [
            self._sensor_record(data)
            for token in self.samples(scene_name)
            for data in self._data_of_sample.get(token, [])
            if sweeps or data["is_key_frame"]
        ]
        chosen = [r for r in records if modality in (None, r.modality)]
        return sorted(chosen, key=lambda record: (record.stamp_ns, record.channel))

    def camera_data(self, scene_name: str, *, sweeps: bool = True) -> list[SensorRecord]:
        """Images of a scene in the order of time; see `sensor_data`."""
        return self.sensor_data(scene_name, modality="camera", sweeps=sweeps)

    def frame_set(self, sample_token: str, cameras: Sequence[str] | None = None) -> FrameSet:
        """Decoded key frames of a sample; its stamp is the sample's.

        Args:
            sample_token: of the sample.
            cameras: names; all that the sample has when None.

        Raises:
            DataError: a camera is not in the sample, or its image is missing or corrupt.
        """
        records = self.cameras(sample_token)
        names = tuple(records) if cameras is None else cameras
        if absent := [name for name in names if name not in records]:
            raise DataError(
                f"sample {sample_token} has no image of {', '.join(absent)}; it has "
                f"{', '.join(records) or 'none'}"
            )
        views = tuple(records[name].view() for name in names)
        return FrameSet(self.stamp_ns(sample_token), views)

    def has_images(self, sample_token: str) -> bool:
        """Whether the files of all of the sample's cameras are there."""
        found = [
            data
            for data in self._key_frames(sample_token)
            if self._sensor(data)["modality"] == "camera"
        ]
        return bool(found) and all((self.dataroot / data["filename"]).is_file() for data in found)

    def lidar(self, sample_token: str) -> SensorRecord:
        """The LiDAR scan of a sample.

        Raises:
            DataError: it has none.
        """
        for data in self._key_frames(sample_token):
            if self._sensor(data)["channel"] == LIDAR:
                return self._sensor_record(data)
        raise DataError(f"sample {sample_token} has no {LIDAR} in {self.version}")

    def lidar_sweeps(self, sample_token: str, past: int, future: int) -> list[SensorRecord]:
        """Scans around that of a sample, the nearest first: those before it, then those after it.

        Args:
            sample_token: of the sample.
            past: scans before it, at most.
            future: scans after it, at most.
        """
        own = self.lidar(sample_token)
        found: list[SensorRecord] = []
        for direction, count in (("prev", past), ("next", future)):
            token = own.token
            for turn in range(1, count + 1):
                token = self._get("sample_data", token)[direction]
                if not token:
                    break
                record = self._sensor_record(self._get("sample_data", token))
                # where scans between samples are not recorded, the chain leaps to another sample
                if abs(record.stamp_ns - own.stamp_ns) > turn * _LONGEST_TURN_NS:
                    break
                found.append(record)
        return found

    def lidar_path(self, sample_token: str) -> Path:
        """File of the LiDAR scan of a sample."""
        return self.lidar(sample_token).path

    def ground_truth(self, sample_token: str) -> GroundTruth:
        """Boxes of the ten classes and what scoring needs beside them."""
        sample = self._get("sample", sample_token)
        rows: list[list[float]] = []
        racks: list[list[float]] = []
        kept: list[Record] = []
        labels: list[int] = []
        for record in self._annotations_of_sample.get(sample_token, []):
            category = self._category(record)
            if category == _BICYCLE_RACK:
                racks.append(_box_row(record))
            elif category in CATEGORY_TO_CLASS:
                kept.append(record)
                labels.append(CLASSES.index(CATEGORY_TO_CLASS[category]))
                rows.append([*_box_row(record), *self._velocity(record)])
        boxes = Boxes3D(
            FIXED_FRAME,
            torch.tensor(rows, dtype=torch.float64).reshape(-1, len(BOX_FIELDS)),
            torch.tensor(labels, dtype=torch.int64),
            torch.ones(len(rows), dtype=torch.float64),
        )
        return GroundTruth(
            sample_token,
            int(sample["timestamp"]) * 1000,
            self.lidar(sample_token).fixed_from_ego,
            boxes,
            tuple(str(r["token"]) for r in kept),
            tuple(str(r["instance_token"]) for r in kept),
            tuple(int(r["num_lidar_pts"]) for r in kept),
            tuple(int(r["num_radar_pts"]) for r in kept),
            tuple(self._attribute(r) for r in kept),
            tuple(self._visibility(r) for r in kept),
            np.array(racks, dtype=np.float64).reshape(-1, 7),
        )

    def _get(self, table: str, token: str) -> Record:
        try:
            return self._records[table][token]
        except KeyError:
            folder = self.dataroot / self.version
            raise DataError(f"no {table} {token!r} in {folder / table}.json") from None

    @cached_property
    def _data_of_sample(self) -> dict[str, list[Record]]:
        return self._group("sample_data")

    @cached_property
    def _annotations_of_sample(self) -> dict[str, list[Record]]:
        return self._group("sample_annotation")

    def _group(self, table: str) -> dict[str, list[Record]]:
        groups: dict[str, list[Record]] = defaultdict(list)
        for record in self._records[table].values():
            groups[record["sample_token"]].append(record)
        return groups

    def _key_frames(self, sample_token: str) -> list[Record]:
        return [d for d in self._data_of_sample.get(sample_token, []) if d["is_key_frame"]]

    def _sensor(self, data: Record) -> Record:
        mounting = self._get("calibrated_sensor", data["calibrated_sensor_token"])
        return self._get("sensor", mounting["sensor_token"])

    def _sensor_record(self, data: Record) -> SensorRecord:
        token = data["calibrated_sensor_token"]
        mounting, sensor = self._get("calibrated_sensor", token), self._sensor(data)
        if token not in self._mountings:
            self._mountings[token] = _transform(EGO_FRAME, sensor["channel"], mounting)
        pose = self._get("ego_pose", data["ego_pose_token"])
        return SensorRecord(
            token=data["token"],
            sample_token=data["sample_token"],
            channel=sensor["channel"],
            modality=sensor["modality"],
            stamp_ns=int(data["timestamp"]) * 1000,
            is_key_frame=bool(data["is_key_frame"]),
            path=self.dataroot / data["filename"],
            ego_from_sensor=self._mountings[token],
            fixed_from_ego=_transform(FIXED_FRAME, EGO_FRAME, pose),
            intrinsics_px=np.asarray(mounting["camera_intrinsic"], dtype=np.float64),
            width_px=int(data["width"] or 0),
            height_px=int(data["height"] or 0),
        )

    def _category(self, annotation: Record) -> str:
        instance = self._get("instance", annotation["instance_token"])
        return str(self._get("category", instance["category_token"])["name"])

    def _attribute(self, annotation: Record) -> str:
        tokens = annotation["attribute_tokens"]
        return str(self._get("attribute", tokens[0])["name"]) if tokens else ""

    def _visibility(self, annotation: Record) -> str:
        token = annotation["visibility_token"]
        return str(self._get("visibility", token)["level"]) if token else ""

    def _velocity(self, annotation: Record) -> list[float]:
        """Difference of the centres before and after, as the devkit's `box_velocity`."""
        first, last = (
            self._get("sample_annotation", annotation[side]) if annotation[side] else annotation
            for side in ("prev", "next")
        )
        stamps = [1e-6 * self._get("sample", r["sample_token"])["timestamp"] for r in (first, last)]
        elapsed_s = stamps[1] - stamps[0]
        both = bool(annotation["prev"] and annotation["next"])
        if not 0 < elapsed_s <= _MAX_VELOCITY_GAP_S * (2 if both else 1):
            return [float("nan")] * 2
        return [
            (b - a) / elapsed_s
            for a, b in zip(first["translation"][:2], last["translation"][:2], strict=True)
        ]


def _transform(target: str, source: str, record: Record) -> Transform:
    return Transform.from_quaternion(target, source, record["rotation"], record["translation"])


def _box_row(annotation: Record) -> list[float]:
    width, length, height = annotation["size"]
    w, x, y, z = annotation["rotation"]
    yaw = float(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))
    return [*annotation["translation"], length, width, height, yaw]


def _read_table(path: Path) -> list[Record]:
    try:
        rows = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path} is missing; the tables are not complete") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no readable JSON table: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(r, dict) and "token" in r for r in rows):
        raise DataError(f"{path} is no nuScenes table: it must be a list of records with tokens")
    return rows


def _no_tables(dataroot: Path, version: str) -> str:
    if not dataroot.is_dir():
        return f"no data root {dataroot}: there is no such folder"
    versions = sorted(path.parent.name for path in dataroot.glob("*/scene.json"))
    there = f"it has the versions {', '.join(versions)}" if versions else "it has no tables at all"
    return f"data root {dataroot} has no tables {version}/*.json; {there}"
