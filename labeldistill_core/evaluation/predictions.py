# SPDX-License-Identifier: Apache-2.0
"""Boxes that a network finds in the key frames of a data root."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from tqdm import tqdm

from labeldistill_core.cameras import FIXED_FRAME
from labeldistill_core.data.horizon_check import warn_of_lost_horizons
from labeldistill_core.data.images import decode_reduction
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.samples import LidarDataset
from labeldistill_core.distillation.label_encoder import LabelEncoder
from labeldistill_core.errors import DataError
from labeldistill_core.evaluation.result_boxes import result_columns
from labeldistill_core.evaluation.result_columns import BoxArrays, ResultColumns
from labeldistill_core.frames import Transform
from labeldistill_core.lidar.points import Points
from labeldistill_core.lidar.teacher import Teacher
from labeldistill_core.network.decode import decode
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.runtime.device import resolve_device

_LOG = logging.getLogger(__name__)


def student_results(
    detector: Detector, tables: NuScenesTables, samples: Mapping[str, Sequence[str]]
) -> ResultColumns:
    """Run a student over samples of scenes, each scene's in the order of time.

    Where a data root is partial, samples that lack an image are left out and counted.

    Raises:
        DataError: no sample has all its images.
    """
    known = [(scene, token) for scene, tokens in samples.items() for token in tokens]
    cameras = detector.config.cameras
    tokens = [(scene, token) for scene, token in known if tables.has_images(token, cameras)]
    if known and not tokens:
        raise DataError(
            f"none of the {len(known)} samples has all its images under {tables.dataroot}; unpack "
            "the camera blobs there"
        )
    if left_out := len(known) - len(tokens):
        _LOG.warning(
            "%s is partial: %d of %d samples lack images and are left out",
            tables.dataroot, left_out, len(known),
        )  # fmt: skip
    warn_of_lost_horizons(tables, [token for _, token in tokens], cameras, detector.config.image)
    identity = Transform.identity(FIXED_FRAME, FIXED_FRAME)
    results: dict[str, BoxArrays] = {}
    reduction = partial(decode_reduction, image=detector.config.image)
    before = ""
    for scene, token in tqdm(tokens, unit="sample", disable=None):
        if scene != before:
            # Stamps of another scene may be later and seem to go on.
            detector.reset()
            before = scene
        found = detector.detect(tables.frame_set(token, cameras, reduction))
        results[token] = result_columns(found.in_frame(identity), detector.class_names)
    return ResultColumns(results)


@torch.no_grad()
def lidar_results(
    teacher: Teacher,
    label_encoder: LabelEncoder | None,
    tables: NuScenesTables,
    scenes: Sequence[str],
    device: str = "auto",
) -> ResultColumns:
    """Run a teacher on points; or, with a label encoder, its head on the features of true boxes."""
    where = torch.device(resolve_device(device))
    config = teacher.config
    teacher = teacher.to(where).eval()
    points = None if label_encoder else Points(config.sweeps)
    # A teacher's file names no cameras, so each sample's own say where the vehicle was.
    data = LidarDataset(tables, scenes, points=points)
    if points:
        points.look_for_sweeps(tables, data.tokens, partial=True)
    results: dict[str, BoxArrays] = {}
    for index in tqdm(range(len(data)), unit="sample", disable=None):
        sample = data[index].to(where)
        if label_encoder is None:
            maps = teacher(sample.points).maps
        else:
            maps = teacher.detect(label_encoder.to(where)(sample.boxes))
        (boxes,) = decode(maps, config.grid, config.decode)
        (token,), (pose,) = sample.tokens, sample.map_from_ego
        results[token] = result_columns(boxes.to("cpu").transformed(pose), config.head.class_names)
    return ResultColumns(results)
