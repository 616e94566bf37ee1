# SPDX-License-Identifier: Apache-2.0
"""Look at a data root: ground truth, and what a student says, in its images."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import FIXED_FRAME
from labeldistill_core.classes import CLASSES
from labeldistill_core.data.nuscenes import LIDAR, NuScenesTables
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Array, Transform
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.runtime.device import Precision
from labeldistill_core.visualization.lidar_overlay import with_points
from labeldistill_core.visualization.page import PageFrame, write_page
from labeldistill_core.visualization.pictures import birds_eye_view, camera_mosaic

_LOG = logging.getLogger(__name__)
_LIDAR_COLUMNS = 5  # x, y, z, intensity, ring


def view(
    dataroot: Annotated[Path, tyro.conf.Positional],
    out: Annotated[Path, tyro.conf.Positional],
    version: str = "v1.0-trainval",
    scene: str | None = None,
    checkpoint: Path | None = None,
    limit: int | None = None,
    min_score: float = 0.3,
    lidar: bool = True,
    device: str = "auto",
    precision: Precision = "float32",
) -> None:
    """Write a page with the key frames of a data root, their boxes drawn in.

    Ground truth that no LiDAR or radar point hit is left out, as in the metrics.

    Args:
        dataroot: nuScenes data root, real or synthetic.
        out: folder for `index.html` and the pictures.
        version: of the tables.
        scene: name of one scene; all when none is given.
        checkpoint: file of a student whose boxes are drawn beside the ground truth.
        limit: stop after so many key frames.
        min_score: boxes of the student below are not drawn.
        lidar: paint the LiDAR's points into the images.
        device: cpu, cuda:0 and so on, or auto.
        precision: of the convolutions.
    """
    tables = NuScenesTables(dataroot, version)
    scenes = (scene,) if scene else tables.scene_names
    samples = [(name, token) for name in scenes for token in tables.samples(name)]
    there = [(name, token) for name, token in samples if tables.has_images(token)]
    if not there:
        raise DataError(
            f"none of the {len(samples)} key frames has all its images under {dataroot}; unpack "
            "the image archives there, or choose another --scene"
        )
    if absent := len(samples) - len(there):
        _LOG.warning("%d of %d key frames lack images and are left out", absent, len(samples))
    detector = None
    if checkpoint:
        detector = Detector.load(checkpoint, device=device, precision=precision)
    chosen = there[:limit]
    summary = [
        ("tables", version),
        ("scenes", str(len({name for name, _ in chosen}))),
        ("key frames", str(len(chosen))),
        ("student", checkpoint.name if checkpoint else "none"),
    ]
    frames = _frames(tables, chosen, detector, min_score, lidar)
    page = write_page(out, f"{dataroot.name}: {scene or 'all scenes'}", summary, frames)
    print(f"open {page}")


def lidar_points(tables: NuScenesTables, token: str) -> Array | None:
    """(P, 3) points of a sample's scan in the ego frame at the scan; None when there is no file.

    Raises:
        DataError: the file is no nuScenes scan.
    """
    record = tables.sensors(token).get(LIDAR)
    if record is None or not record.is_there:
        return None
    values = np.frombuffer(record.read(), dtype=np.uint8)
    if len(values) % (4 * _LIDAR_COLUMNS):
        raise DataError(f"{record.path} is no nuScenes scan of five float32 a point; is it whole?")
    points = values.view(np.float32).reshape(-1, _LIDAR_COLUMNS)
    return record.ego_from_sensor.apply(points[:, :3])


def _frames(
    tables: NuScenesTables,
    samples: list[tuple[str, str]],
    detector: Detector | None,
    min_score: float,
    lidar: bool,
) -> Iterator[PageFrame]:
    """Made one by one, in the order of time within each scene, as a detector needs it."""
    class_names = detector.class_names if detector else CLASSES
    identity = Transform.identity(FIXED_FRAME, FIXED_FRAME)
    before = ""
    for name, token in samples:
        if detector and name != before:
            detector.reset(f"scene {name}")
        before = name
        frames = tables.frame_set(token)
        truth = tables.ground_truth(token)
        hit = torch.tensor(truth.num_lidar_pts) + torch.tensor(truth.num_radar_pts) > 0
        boxes = truth.boxes[hit]
        predicted = Boxes3D.empty(FIXED_FRAME)
        if detector:
            predicted = detector.detect(frames).in_frame(identity)
            predicted = predicted[predicted.scores >= min_score]
        counts = f"{len(boxes)} true boxes"
        if detector:
            counts += f", {len(predicted)} found with a score of at least {min_score:g}"
        points = lidar_points(tables, token)
        if lidar and points is not None:
            placed = truth.fixed_from_ego.apply(points)
            frames = replace(frames, views=tuple(with_points(v, placed) for v in frames.views))
        yield PageFrame(
            f"{name}, {frames.stamp_ns / 1e9:.3f} s, sample {token}: {counts}",
            camera_mosaic(frames, predicted, boxes, class_names=class_names),
            birds_eye_view(
                predicted,
                boxes,
                truth.fixed_from_ego,
                lidar_points=points,
                class_names=class_names,
            ),
        )
