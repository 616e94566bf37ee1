# SPDX-License-Identifier: Apache-2.0
"""Folders of tensors that were recorded from the published code, and what they were made from."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import (
    EGO_FRAME,
    FIXED_FRAME,
    CameraCalibration,
    CameraView,
    FrameSet,
)
from labeldistill_core.classes import CLASSES, NUSCENES
from labeldistill_core.config import StudentConfig
from labeldistill_core.data.bev_augmentation import BevAugmentation
from labeldistill_core.data.images import ImageTransform
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Transform
from labeldistill_core.lidar.points import Scan
from labeldistill_core.network.student import CameraBatch
from labeldistill_core.published.config import student_config
from labeldistill_core.published.weights import read_state_dict


class _ReadAsFloat64(Mapping[str, NDArray[Any]]):
    """Arrays that are read as float64 where they were recorded in float32."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._arrays = arrays

    def __getitem__(self, name: str) -> NDArray[Any]:
        array = self._arrays[name]
        return array.astype(np.float64) if array.dtype == np.float32 else array

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


class GoldenFolder:
    """One folder; files are read when they are first asked for."""

    double = False
    """Whether recorded values and weights are float64."""

    def __init__(self, folder: Path) -> None:
        """Read the configuration.

        Raises:
            DataError: there is no `config.json` with `confs` and `params`.
        """
        self.folder = folder
        try:
            content = json.loads((folder / "config.json").read_text())
            self.params: Mapping[str, Any] = content["params"]
            self.confs: Mapping[str, Any] = content["confs"]
            self.config: StudentConfig = student_config(self.confs, self.params["key_idxes"])
        except (OSError, json.JSONDecodeError, KeyError) as error:
            raise DataError(f"{folder} is no golden folder: config.json: {error}") from error

    def arrays(self, name: str) -> Mapping[str, NDArray[Any]]:
        """The arrays of `NAME.npz`.

        Raises:
            DataError: the file is missing or damaged.
        """
        path = self.folder / f"{name}.npz"
        if not path.is_file():
            raise DataError(f"{self.folder} lacks {path.name}")
        try:
            archive: Mapping[str, NDArray[Any]] = np.load(path, allow_pickle=False)
        except (zipfile.BadZipFile, ValueError, OSError) as error:
            raise DataError(f"{path} is truncated or no archive of arrays: {error}") from error
        return _ReadAsFloat64(archive) if self.double else archive

    def widened(self) -> GoldenFolder:
        """The same recordings in float64, for networks that compute in it."""
        other = GoldenFolder(self.folder)
        other.double = True
        other.weights = {
            # Counters stay whole numbers.
            name: tensor.double() if tensor.is_floating_point() else tensor
            for name, tensor in self.weights.items()
        }
        return other

    @property
    def code_weights(self) -> Tensor:
        """(10,) weights of the box code in the losses."""
        return torch.tensor(self.confs["head_conf"]["train_cfg"]["code_weights"])

    @cached_property
    def dataset(self) -> Mapping[str, NDArray[Any]]:
        """`dataset.npz`."""
        return self.arrays("dataset")

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """Published names to float32 tensors; counters, stored as vectors, are scalars again."""
        stored = read_state_dict(self.folder / "state_dict.safetensors")
        return {
            name: tensor.squeeze() if name.endswith("num_batches_tracked") else tensor.float()
            for name, tensor in stored.items()
        }

    @cached_property
    def infos(self) -> list[dict[str, Any]]:
        """Frames of the recorded sequence: poses, calibrations, annotations."""
        content: list[dict[str, Any]] = json.loads((self.folder / "dataset_infos.json").read_text())
        return content

    def frame_indices(self, sample: int, pad: str) -> list[int]:
        """Current and past frames of a sample; missing ones by `pad`: "last_valid" or "current"."""
        current = self.params["idxs"][sample]
        scene_start = self.params["scene_cut"] if current >= self.params["scene_cut"] else 0
        frames = [current]
        for step in self.params["key_idxes"]:
            index = current + step
            frames.append(
                index if index >= scene_start else frames[-1] if pad == "last_valid" else current
            )
        return frames

    def frame_set(self, index: int) -> FrameSet:
        """A frame with its synthetic images."""
        info = self.infos[index]
        views = []
        for number, name in enumerate(self.config.cameras):
            camera = info["cam_infos"][name]
            mount = camera["calibrated_sensor"]
            calibration = CameraCalibration(
                name,
                np.array(mount["camera_intrinsic"]),
                camera["width"],
                camera["height"],
                _pose(EGO_FRAME, name, mount),
            )
            stamp_ns = camera["timestamp"] * 1000
            pose = _pose(FIXED_FRAME, EGO_FRAME, camera["ego_pose"])
            image = synthetic_image(index, number, camera["width"], camera["height"])
            views.append(CameraView(calibration, stamp_ns, image, pose))
        return FrameSet(info["timestamp"] * 1000, tuple(views))

    def ground_truth(self, index: int) -> Boxes3D:
        """Annotated boxes with returns, in the fixed frame; unknown velocities are zero."""
        rows, labels = [], []
        for box in self.infos[index]["ann_infos"]:
            name = NUSCENES.class_of.get(box["category_name"])
            if name is None or box["num_lidar_pts"] + box["num_radar_pts"] == 0:
                continue
            width, length, height = box["size"]
            heading = _pose(FIXED_FRAME, "box", box).rotation[:, 0]
            velocity = np.nan_to_num(np.array(box["velocity"][:2], dtype=np.float64))
            yaw = float(np.arctan2(heading[1], heading[0]))
            rows.append([*box["translation"], length, width, height, yaw, *velocity])
            labels.append(CLASSES.index(name))
        values = torch.tensor(rows, dtype=torch.float64).view(-1, 9)
        return Boxes3D(FIXED_FRAME, values, torch.tensor(labels), torch.ones(len(rows)))

    def lidar(self, index: int) -> tuple[NDArray[np.float32], Transform, Transform]:
        """Key scan (P, 5), its mounting pose `ego_from_lidar`, and `fixed_from_ego`."""
        sensor = self.infos[index]["lidar_infos"]["LIDAR_TOP"]
        points = self.dataset[f"lidar_file/{Path(sensor['filename']).name}"]
        return (
            points,
            _pose(EGO_FRAME, "LIDAR_TOP", sensor["calibrated_sensor"]),
            _pose(FIXED_FRAME, EGO_FRAME, sensor["ego_pose"]),
        )

    def scans(self, index: int) -> list[Scan]:
        """LiDAR scan of a frame, then those around it in their recorded order."""
        info = self.infos[index]
        own = info["lidar_infos"]["LIDAR_TOP"]
        # every scan is moved with the calibration of the sample's own
        mount = _pose(EGO_FRAME, "LIDAR_TOP", own["calibrated_sensor"])
        return [
            Scan(
                self.dataset[f"lidar_file/{Path(record['filename']).name}"],
                _pose(FIXED_FRAME, EGO_FRAME, record["ego_pose"]) @ mount,
                (own["timestamp"] - record["timestamp"]) / 1e6,
            )
            for record in (own, *(sweep["LIDAR_TOP"] for sweep in info["lidar_sweeps"]))
        ]

    def lidar_ego(self, index: int) -> Transform:
        """Ego frame at the time of the LiDAR scan."""
        pose = self.infos[index]["lidar_infos"]["LIDAR_TOP"]["ego_pose"]
        return _pose(FIXED_FRAME, EGO_FRAME, pose)

    def batch(self) -> CameraBatch:
        """The recorded network input."""
        data = self.dataset
        images = torch.from_numpy(data["imgs_u8"]).permute(0, 1, 2, 5, 3, 4)
        return CameraBatch(
            images=images,
            intrinsics=torch.from_numpy(data["mats/intrin_mats"])[..., :3, :3],
            image_from_sensor=torch.from_numpy(data["mats/ida_mats"]),
            ego_from_camera=torch.from_numpy(data["mats/sensor2ego_mats"]),
            augmentation=torch.from_numpy(data["mats/bda_mat"]),
            use=torch.ones(images.shape[:3], dtype=torch.bool),
        )

    def boxes(self, prefix: str = "") -> list[Boxes3D]:
        """Recorded ground truth of every sample, augmented, in the ego frame."""
        return [
            recorded_boxes(
                self.dataset[f"{prefix}gt_boxes/{i}"], self.dataset[f"{prefix}gt_labels/{i}"]
            )
            for i in range(len(self.params["idxs"]))
        ]


def recorded_boxes(values: NDArray[Any], labels: NDArray[Any]) -> Boxes3D:
    """Arrays of the published code as boxes in the ego frame."""
    return Boxes3D(
        EGO_FRAME, torch.from_numpy(values), torch.from_numpy(labels), torch.ones(len(values))
    )


def image_transform(params: NDArray[Any]) -> ImageTransform:
    """From a recorded row: resize, width, height, crop, flip, rotation."""
    resize, width, height, left, top, right, bottom, flip, rotate = params.tolist()
    crop = (int(left), int(top), int(right), int(bottom))
    return ImageTransform(resize, (int(width), int(height)), crop, bool(flip), rotate)


def bev_augmentation(params: NDArray[Any]) -> BevAugmentation:
    """From a recorded row: rotation in degrees, scale, mirror x, mirror y."""
    rotation, scale, flip_x, flip_y = params.tolist()
    return BevAugmentation(rotation, scale, bool(flip_x), bool(flip_y))


@cache
def synthetic_image(frame: int, camera: int, width: int, height: int) -> NDArray[np.uint8]:
    """The source image that the recording used; integer arithmetic on column u and row v."""
    v, u = np.mgrid[0:height, 0:width].astype(np.int64)
    red = (u * (3 + camera) + 2 * v + 40 * frame) // 8 % 256
    green = ((u // 64 + v // 48) % 2) * 120 + (u + v + 10 * frame) // 16 % 100
    blue = ((u - 800) ** 2 + (v - 450) ** 2) // (500 + 100 * camera) % 256
    # Computed and not recorded: 18 pictures of 1600x900 would be 78 MB of the folder.
    image: NDArray[np.uint8] = np.stack([red, green, blue], axis=-1).astype(np.uint8)
    image.flags.writeable = False  # it is handed out again
    return image


def _pose(target: str, source: str, record: Mapping[str, Any]) -> Transform:
    return Transform.from_quaternion(target, source, record["rotation"], record["translation"])
