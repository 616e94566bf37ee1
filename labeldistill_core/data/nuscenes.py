# SPDX-License-Identifier: Apache-2.0
"""nuScenes tables: samples, sensor records, poses and ground truth, read without the devkit.

A data root may be partial: the tables then speak of files that are not there, and `SensorRecord`
says which. The tables are columns that processes share; see `tables.opening`. Frames: "map" is
nuScenes' global frame, "ego" the vehicle, a sensor's frame carries the sensor's name.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import EGO_FRAME, FIXED_FRAME, FrameSet
from labeldistill_core.classes import NUSCENES, ClassList
from labeldistill_core.data.category_labels import RACK, labels_of, notes_on_categories
from labeldistill_core.data.images import Reduction
from labeldistill_core.data.nuscenes_records import (
    GroundTruth,
    SensorMounting,
    SensorRecord,
    images_of,
    size_of_image,
)
from labeldistill_core.data.tables.columns import LIDAR, STAMP, SceneRow, lidar_of
from labeldistill_core.data.tables.opening import open_columns
from labeldistill_core.data.versions import found_version
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Transform

_LOG = logging.getLogger(__name__)
_LONGEST_TURN_US = 250_000
"""nuScenes' LiDAR turns in 50 ms, the slowest in 200. What follows later is no sweep."""
_MOUNTINGS_KEPT = 1 << 14
"""nuScenes has 10,200, which take 10 MB."""


class NuScenesTables:
    """The tables of one version under one data root."""

    def __init__(
        self, dataroot: Path, version: str | None = None, classes: ClassList = NUSCENES
    ) -> None:
        """Open the tables.

        Args:
            dataroot: folder with the version's folder, `samples/` and `sweeps/`.
            version: name of the folder with the tables, such as `v1.0-mini`; when None, the only
                one that is there, or `v1.0-trainval` of several.
            classes: those of the configuration; boxes of other categories are left out.

        Raises:
            DataError: there are no such tables, and says which versions there are; or a table is
                missing or no table, a record lacks a field or holds something else there than it
                must, or something is wrong in every scene. A scene that alone is at fault is
                refused when it is asked for.
        """
        self.dataroot, self.class_list = Path(dataroot), classes
        self.version = found_version(self.dataroot, version)
        folder = self.dataroot / self.version
        columns = open_columns(folder)
        self._meta, self._samples, self._data = columns.meta, columns.samples, columns.data
        self._mountings, self._boxes = columns.mountings, columns.boxes
        self._lidar = lidar_of(self._meta.sensors) or LIDAR
        categories = self._meta.categories
        found = notes_on_categories(self._file("category"), categories, classes)
        for note in (*self._meta.notes, *found):
            _LOG.warning("%s", note)
        # The index of the tables knows categories alone, so that all configurations share it.
        self._labels = labels_of(categories, classes)
        tokens = self._samples.token
        # A dictionary of the samples alone, 34 thousand in nuScenes: the millions of records and
        # boxes are reached through their sample.
        self._rows = {token: row for row, token in enumerate(tokens.between(0, len(tokens)))}
        self._scenes = {scene.name: scene for scene in self._meta.scenes}
        self._faults = {row: s.fault for row, s in enumerate(self._meta.scenes) if s.fault}
        # A cache of this object's own; one around the method would keep every data root alive.
        self._mounting = lru_cache(_MOUNTINGS_KEPT)(self._read_mounting)

    def __reduce__(self) -> tuple[type[NuScenesTables], tuple[Path, str, ClassList]]:
        """A process that is sent the tables opens them itself."""
        return NuScenesTables, (self.dataroot, self.version, self.class_list)

    @property
    def scene_names(self) -> tuple[str, ...]:
        """In the order of the table."""
        return tuple(self._scenes)

    def scene_of(self, sample_token: str) -> str:
        """Name of the scene that a sample belongs to."""
        scene = int(self._samples.scene[self._row(sample_token)])
        if scene < 0:
            raise DataError(f"sample {sample_token} belongs to no scene in {self._file('scene')}")
        return self._meta.scenes[scene].name

    def samples(self, scene_name: str) -> tuple[str, ...]:
        """Tokens of a scene's samples in the order of time.

        Raises:
            DataError: there is no such scene, and lists those there are; or something is wrong in
                its tables.
        """
        scene = self._usable_scene(scene_name)
        return tuple(self._samples.token.between(scene.first, scene.first + scene.samples))

    def about(self, scene_name: str) -> dict[str, str]:
        """Description, location, date_captured and vehicle of a scene, empty where not told.

        Raises:
            DataError: there is no such scene, or several of one name.
        """
        scene = self._scene(scene_name)
        if sum(other.name == scene_name for other in self._meta.scenes) > 1:
            raise DataError(scene.fault)
        return dict(scene.about)

    def stamp_ns(self, sample_token: str) -> int:
        """Time of a sample."""
        return int(self._samples.stamp_us[self._usable(sample_token)]) * 1000

    def sensors(self, sample_token: str) -> dict[str, SensorRecord]:
        """Key frames of a sample by the sensor's name."""
        records = map(self._sensor_record, self._key_frames(sample_token))
        return {record.channel: record for record in records}

    def cameras(self, sample_token: str) -> dict[str, SensorRecord]:
        """Key frames of a sample's cameras by name, whether their files are there or not."""
        records = map(self._sensor_record, self._key_frames(sample_token, "camera"))
        return {record.channel: record for record in records}

    def camera_poses(self, sample_token: str) -> dict[str, Transform]:
        """Where the vehicle was when each camera took a sample's image, by the camera's name.

        Without the cameras' other data, so that no image is opened for its size.
        """
        return {
            self._mounting(int(self._data.mounting[row])).channel: self._ego_pose(row)
            for row in self._key_frames(sample_token, "camera")
        }

    def sensor_data(
        self, scene_name: str, *, modality: str | None = None, sweeps: bool = True
    ) -> list[SensorRecord]:
        """Records of a scene in the order of time.

        Args:
            scene_name: of the scene.
            modality: camera, lidar or radar; all of them when None.
            sweeps: also what was taken between the samples.
        """
        scene = self._usable_scene(scene_name)
        first, end = self._samples.data_start[[scene.first, scene.first + scene.samples]].tolist()
        records = map(self._sensor_record, self._chosen(first, end, modality, sweeps))
        # By name where stamps are equal, so that bags have the same order of messages each time.
        return sorted(records, key=lambda record: (record.stamp_ns, record.channel))

    def frame_set(
        self,
        sample_token: str,
        cameras: Sequence[str] | None = None,
        reduction: Reduction | None = None,
    ) -> FrameSet:
        """Decoded key frames of a sample; its stamp is the sample's.

        Args:
            sample_token: of the sample.
            cameras: names; all that the sample has when None.
            reduction: of JPEGs, see `decode_jpeg`.

        Raises:
            DataError: a camera is not in the sample, or its image is missing or corrupt.
        """
        records = self.cameras(sample_token)
        chosen = images_of(sample_token, records, tuple(records) if cameras is None else cameras)
        return FrameSet(self.stamp_ns(sample_token), tuple(r.view(reduction) for r in chosen))

    def has_images(self, sample_token: str, cameras: Sequence[str] | None = None) -> bool:
        """Whether the files of the sample's cameras are there.

        Args:
            sample_token: of the sample.
            cameras: names; all that the sample has when None.
        """
        # Asked of every sample before a training starts, so no record or calibration is made for
        # it.
        rows = self._key_frames(sample_token, "camera")
        there = [row for row in rows if self._path(row).is_file()]
        if cameras is None:
            return bool(rows) and len(there) == len(rows)
        names = {self._mounting(int(self._data.mounting[row])).channel for row in there}
        return names.issuperset(cameras)

    def has_scan(self, sample_token: str) -> bool:
        """Whether the sample has a LiDAR scan, and its file is there."""
        row = self._scan_row(sample_token)
        return row is not None and self._path(row).is_file()

    def lidar(self, sample_token: str) -> SensorRecord:
        """The LiDAR scan of a sample.

        Raises:
            DataError: it has none.
        """
        return self._sensor_record(self._lidar_row(sample_token))

    def lidar_sweeps(self, sample_token: str, past: int, future: int) -> list[SensorRecord]:
        """Scans around that of a sample, the nearest first: those before it, then those after it.

        Those whose files are not there are left out; see `lacks_sweeps`.

        Args:
            sample_token: of the sample.
            past: scans before it, at most.
            future: scans after it, at most.
        """
        rows = self._sweeps(sample_token, past, future)
        return [self._sensor_record(row) for row in rows if self._path(row).is_file()]

    def lacks_sweeps(self, sample_token: str, past: int, future: int) -> bool:
        """Whether a file of the scans around that of a sample is not there; see `lidar_sweeps`."""
        rows = self._sweeps(sample_token, past, future)
        return not all(self._path(row).is_file() for row in rows)

    def _sweeps(self, sample_token: str, past: int, future: int) -> list[int]:
        own, stamps_us = self._lidar_row(sample_token), self._data.stamp_us
        found: list[int] = []
        for neighbours, count in ((self._data.prev, past), (self._data.next, future)):
            row = own
            for _ in range(count):
                before, row = row, int(neighbours[row])
                # where scans between samples are not recorded, the chain leaps to another sample
                if row < 0 or abs(int(stamps_us[row] - stamps_us[before])) > _LONGEST_TURN_US:
                    break
                found.append(row)
        return found

    def classes(self, sample_token: str) -> frozenset[str]:
        """Names of the classes that have boxes in a sample."""
        first, end = self._boxes_of(self._usable(sample_token))
        labels = set(self._labels[self._boxes.category[first:end]].tolist())
        return frozenset(self.class_list.names[label] for label in labels if label >= 0)

    def ground_truth(self, sample_token: str) -> GroundTruth:
        """Boxes of the configuration's classes and what scoring needs beside them.

        Ranges are measured from the vehicle at the LiDAR scan, or, where a data set has no LiDAR,
        at the key frame nearest to the sample's time.
        """
        row, boxes = self._usable(sample_token), self._boxes
        first, end = self._boxes_of(row)
        labels = self._labels[boxes.category[first:end]]
        # Racks are no class, but the devkit scores no bicycle within one, so they go along.
        # Rows by index and not by slice make copies: tensors must not share the tables' pages,
        # which many processes map.
        kept, racks = np.flatnonzero(labels >= 0), np.flatnonzero(labels == RACK)
        rows, values = first + kept, boxes.values[first:end]
        posed_by = int(self._samples.posed_by[row])
        if posed_by < 0:
            raise DataError(
                f"sample {sample_token} has no key frame in {self._file('sample_data')}"
            )
        tokens = boxes.token.between(first, end)
        attributes, levels = self._meta.attributes, self._meta.visibilities
        return GroundTruth(
            sample_token,
            int(self._samples.stamp_us[row]) * 1000,
            self._ego_pose(posed_by),
            Boxes3D(
                FIXED_FRAME,
                torch.from_numpy(values[kept]),
                torch.from_numpy(labels[kept]),
                torch.ones(len(kept), dtype=torch.float64),
            ),
            tuple(tokens[i] for i in kept.tolist()),
            tuple(boxes.instances.at(boxes.instance[rows].astype(np.int64))),
            tuple(boxes.num_lidar_pts[rows].tolist()),
            tuple(boxes.num_radar_pts[rows].tolist()),
            tuple(attributes[i] if i >= 0 else "" for i in boxes.attribute[rows].tolist()),
            tuple(levels[i] if i >= 0 else "" for i in boxes.visibility[rows].tolist()),
            values[racks, :7],
            self.class_list,
        )

    def _file(self, table: str) -> Path:
        return self.dataroot / self.version / f"{table}.json"

    def _row(self, sample_token: str) -> int:
        try:
            return self._rows[sample_token]
        except KeyError:
            raise DataError(f"no sample {sample_token!r} in {self._file('sample')}") from None

    def _usable(self, sample_token: str) -> int:
        """Row of a sample whose scene has no fault."""
        row = self._row(sample_token)
        if self._faults and (fault := self._faults.get(int(self._samples.scene[row]))):
            raise DataError(fault)
        return row

    def _scene(self, name: str) -> SceneRow:
        if name not in self._scenes:
            names = self.scene_names
            known = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if names[20:] else "")
            raise DataError(
                f"no scene {name!r} in {self.dataroot / self.version}; there are: {known}"
            )
        return self._scenes[name]

    def _usable_scene(self, name: str) -> SceneRow:
        scene = self._scene(name)
        if scene.fault:
            raise DataError(scene.fault)
        return scene

    def _boxes_of(self, sample: int) -> tuple[int, int]:
        first, end = self._samples.box_start[sample : sample + 2].tolist()
        return first, end

    def _key_frames(self, sample_token: str, modality: str | None = None) -> list[int]:
        row = self._usable(sample_token)
        first, end = self._samples.data_start[row : row + 2].tolist()
        return self._chosen(first, end, modality, sweeps=False)

    def _chosen(self, first: int, end: int, modality: str | None, sweeps: bool) -> list[int]:
        """Rows of sensor data between two."""
        rows = [
            first + i
            for i, is_key in enumerate(self._data.is_key_frame[first:end].tolist())
            if sweeps or is_key
        ]
        if modality is None:
            return rows
        mountings = self._data.mounting[first:end].tolist()
        return [row for row in rows if self._mounting(mountings[row - first]).modality == modality]

    def _scan_row(self, sample_token: str) -> int | None:
        # A sample's pose comes from its LiDAR scan if there is one, so that record is the scan.
        row = int(self._samples.posed_by[self._usable(sample_token)])
        has = row >= 0 and self._mounting(int(self._data.mounting[row])).channel == self._lidar
        return row if has else None

    def _lidar_row(self, sample_token: str) -> int:
        row = self._scan_row(sample_token)
        if row is None:
            raise DataError(f"sample {sample_token} has no {self._lidar} in {self.version}")
        return row

    def _read_mounting(self, row: int) -> SensorMounting:
        sensor = self._meta.sensors[int(self._mountings.sensor[row])]
        pose, camera = self._mountings.pose[row].copy(), sensor.modality == "camera"
        return SensorMounting(
            sensor.channel,
            sensor.modality,
            Transform.from_quaternion(EGO_FRAME, sensor.channel, pose[3:], pose[:3]),
            self._mountings.intrinsics[row].copy() if camera else np.empty(0),
        )

    def _ego_pose(self, row: int) -> Transform:
        pose = self._data.pose[row].copy()  # what is mapped cannot be written to
        return Transform.from_quaternion(FIXED_FRAME, EGO_FRAME, pose[3:], pose[:3])

    def _path(self, row: int) -> Path:
        pattern = self._mountings.patterns[int(self._data.pattern[row])]
        return self.dataroot / pattern.replace(STAMP, str(int(self._data.stamp_us[row])))

    def _sensor_record(self, row: int) -> SensorRecord:
        data, path = self._data, self._path(row)
        mounting, sample = self._mounting(int(data.mounting[row])), int(data.sample[row])
        size_px = int(data.width_px[row]), int(data.height_px[row])
        # Tables of other tools leave the size out; then the image itself is asked.
        if mounting.modality == "camera" and 0 in size_px:
            size_px = size_of_image(path)
        return SensorRecord(
            token=data.token[row],
            sample_token=self._samples.token[sample] if sample >= 0 else "",
            channel=mounting.channel,
            modality=mounting.modality,
            stamp_ns=int(data.stamp_us[row]) * 1000,
            is_key_frame=bool(data.is_key_frame[row]),
            path=path,
            ego_from_sensor=mounting.ego_from_sensor,
            fixed_from_ego=self._ego_pose(row),
            intrinsics_px=mounting.intrinsics_px.copy(),
            width_px=size_px[0],
            height_px=size_px[1],
        )
