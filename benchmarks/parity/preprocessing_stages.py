# SPDX-License-Identifier: Apache-2.0
"""Parity of pre-processing: images, matrices, boxes, augmentation, depth labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.parity.golden import (
    GoldenFolder,
    bev_augmentation,
    image_transform,
    recorded_boxes,
    synthetic_image,
)
from benchmarks.parity.result import StageComparison, absolute, features, integers, pixels
from labeldistill_core.data.batch import camera_batch, collate, mean_ego_pose
from labeldistill_core.data.depth_labels import depth_bins, depth_map, points_in_image
from labeldistill_core.data.images import decode_jpeg
from labeldistill_core.network.image_encoder import ImageEncoder

_GREY_LEVEL = 1.0
_DEPTH_POINT_PX = 0.1
"""The recording rounded global coordinates of about 1 km to float32 before projecting."""


def compare(golden: GoldenFolder) -> Iterator[StageComparison]:
    """All stages of pre-processing."""
    yield from _dataset(golden)
    yield from _evaluation_dataset(golden)
    yield from _boxes(golden)
    yield from _depth(golden)
    yield from _recorded_cases(golden)


def _dataset(golden: GoldenFolder) -> Iterator[StageComparison]:
    data, samples = golden.dataset, len(golden.params["idxs"])
    batch = collate(
        [
            camera_batch(
                [golden.frame_set(i) for i in golden.frame_indices(sample, "last_valid")],
                golden.config,
                [image_transform(row) for row in data["ida_params"][sample]],
                bev_augmentation(data["bda_params"][sample]).matrix,
            )
            for sample in range(samples)
        ]
    )
    name = "preprocessing/training_"
    images = batch.images.permute(0, 1, 2, 4, 5, 3)
    yield pixels(name + "images", images, data["imgs_u8"], _GREY_LEVEL)
    yield features(name + "intrinsics", batch.intrinsics, data["mats/intrin_mats"][..., :3, :3])
    yield features(name + "image_matrices", batch.image_from_sensor, data["mats/ida_mats"])
    yield features(name + "camera_poses", batch.ego_from_camera, data["mats/sensor2ego_mats"])
    yield features(name + "bev_augmentation", batch.augmentation, data["mats/bda_mat"])
    yield pixels(
        "preprocessing/normalized_image",
        _normalize(golden, batch.images[0, 0, :1])[0],
        data["imgs_norm_sample0_frame0_cam0"],
        _GREY_LEVEL / min(golden.config.image.std),
    )


def _evaluation_dataset(golden: GoldenFolder) -> Iterator[StageComparison]:
    data = golden.dataset
    batch = collate(
        [
            camera_batch(
                [golden.frame_set(i) for i in golden.frame_indices(sample, "current")],
                golden.config,
            )
            for sample in range(len(golden.params["idxs"]))
        ]
    )
    name = "preprocessing/evaluation_"
    yield features(name + "image_matrices", batch.image_from_sensor, data["val_mats/ida_mats"])
    yield features(name + "camera_poses", batch.ego_from_camera, data["val_mats/sensor2ego_mats"])
    yield pixels(
        name + "image",
        _normalize(golden, batch.images[0, 0, :1])[0],
        data["val_imgs_sample0_frame0_cam0"],
        _GREY_LEVEL / min(golden.config.image.std),
    )


def _boxes(golden: GoldenFolder) -> Iterator[StageComparison]:
    for sample, recorded in enumerate(golden.boxes()):
        index = golden.params["idxs"][sample]
        ego_from_fixed = mean_ego_pose(golden.frame_set(index)).inverse
        augmentation = bev_augmentation(golden.dataset["bda_params"][sample])
        boxes = augmentation.apply(golden.ground_truth(index).transformed(ego_from_fixed))
        name = f"preprocessing/ground_truth_{sample}"
        yield features(name + "_box", boxes.values[:, :6], recorded.values[:, :6])
        turn = boxes.yaws.float() - recorded.yaws
        # the published yaw is an Euler angle of the tilted box, ours the heading in the plane
        wrapped = torch.atan2(turn.sin(), turn.cos())
        yield absolute(name + "_yaw", wrapped, torch.zeros_like(wrapped), 2e-3)
        yield absolute(name + "_velocity", boxes.velocities, recorded.velocities, 1e-2)
        yield integers(name + "_label", boxes.labels, recorded.labels)


def _depth(golden: GoldenFolder) -> Iterator[StageComparison]:
    data, config = golden.dataset, golden.config
    maps = []
    for sample, index in enumerate(golden.params["idxs"]):
        points, ego_from_lidar, fixed_from_ego = golden.lidar(index)
        fixed_from_lidar = fixed_from_ego @ ego_from_lidar
        views = golden.frame_set(index).by_name
        for camera, name in enumerate(config.cameras):
            calibration = views[name].calibration
            fixed_from_camera = views[name].fixed_from_ego @ calibration.ego_from_camera
            seen = points_in_image(
                points, fixed_from_camera.inverse @ fixed_from_lidar, calibration
            )
            recorded = data[f"depth_gt_bin/f{index}_{name}"]
            stage = f"preprocessing/depth_points_{sample}_{name}"
            size = (calibration.width_px, calibration.height_px)
            yield absolute(stage, _inner(seen, size), _inner(recorded, size), _DEPTH_POINT_PX)
            transform = image_transform(data["ida_params"][sample, camera])
            maps.append(depth_map(recorded, transform, "last"))
    stacked = np.stack(maps)
    theirs = data["depth_map"].reshape(stacked.shape)
    different = (stacked > 0) != (theirs > 0)
    yield integers("preprocessing/depth_map_pixels", different, np.zeros_like(different))
    both = (stacked > 0) & (theirs > 0)
    yield features("preprocessing/depth_map", stacked[both], theirs[both])
    bins = depth_bins(torch.from_numpy(theirs), config.image_encoder.stride, config.depth_bins)
    recorded_bins = data["depth_onehot_bins"].reshape(bins.shape)
    yield integers("preprocessing/depth_bins", bins, recorded_bins)


def _inner(points: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Without the points at the border, of which rounding decides whether they are seen."""
    margin = 1 + _DEPTH_POINT_PX
    low, high = np.array([margin, margin]), np.array(size) - margin
    return np.asarray(points[((points[:, :2] > low) & (points[:, :2] < high)).all(axis=1)])


def _recorded_cases(golden: GoldenFolder) -> Iterator[StageComparison]:
    data = golden.arrays("preproc")
    jpeg = golden.folder / "nuscenes_CAM_FRONT.jpg"
    for key in sorted(name.removesuffix("/params") for name in data if name.endswith("/params")):
        params, stage = data[f"{key}/params"], f"preprocessing/{key}"
        if key.startswith("bda/"):
            augmentation = bev_augmentation(params)
            boxes = recorded_boxes(
                data[f"{key}/boxes_in"], np.zeros(len(data[f"{key}/boxes_in"]), dtype=np.int64)
            )
            yield features(
                stage + "/boxes", augmentation.apply(boxes).values, data[f"{key}/boxes_out"]
            )
            yield features(stage + "/matrix", augmentation.matrix[:3, :3], data[f"{key}/mat3"])
            continue
        if key.startswith("nuscenes_"):
            source = decode_jpeg(jpeg.read_bytes())
        else:
            frame, camera = (int(part[1:]) for part in key.split("/")[0].split("_")[1:])
            source = synthetic_image(frame, camera, 1600, 900)
        transform = image_transform(params)
        image = transform.apply(source)
        yield pixels(stage + "/image", image, data[f"{key}/u8"], _GREY_LEVEL)
        yield features(stage + "/matrix", transform.matrix, data[f"{key}/ida_mat"])
        depth = depth_map(data[f"{key}/depth_points_in"], transform, "last")
        yield features(stage + "/depth_map", depth, data[f"{key}/depth_map"])
        if f"{key}/normalised_chw" in data:
            chw = torch.from_numpy(image.copy()).permute(2, 0, 1)
            grey_level = _GREY_LEVEL / min(golden.config.image.std)
            theirs = data[f"{key}/normalised_chw"]
            yield pixels(
                stage + "/normalized", _normalize(golden, chw[None])[0], theirs, grey_level
            )


def _normalize(golden: GoldenFolder, images: torch.Tensor) -> torch.Tensor:
    return ImageEncoder(golden.config.image_encoder, golden.config.image).normalize(images)
