# SPDX-License-Identifier: Apache-2.0
"""Look at a data root: ground truth, and what a student says, in its images."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import FIXED_FRAME, FrameSet
from labeldistill_core.classes import CLASSES
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import ConfigError, DataError
from labeldistill_core.frames import Array, Transform
from labeldistill_core.options import ClassesOptions, InferenceOptions
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.visualization.animation import AnimationOptions, animated
from labeldistill_core.visualization.lidar_overlay import with_points
from labeldistill_core.visualization.page import PageFrame, refuse_odd_score, write_page

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ViewOptions(AnimationOptions, InferenceOptions, ClassesOptions):
    """What is drawn of a data root."""

    scene: str | None = None
    """Name of the only scene to draw; all when none is given."""
    checkpoint: Path | None = None
    """Checkpoint of a student whose boxes are drawn beside the ground truth."""
    limit: int | None = None
    """Stop after so many key frames."""
    min_score: float = 0.3
    """Boxes of the student with a lower score are not drawn."""
    lidar: bool = True
    """Paint the LiDAR's points into the images."""

    def __post_init__(self) -> None:
        """Refuse a page of nothing."""
        super().__post_init__()
        if self.limit is not None and self.limit < 1:
            raise ConfigError("--limit must be 1 or more")
        refuse_odd_score(self.min_score)


def view(dataroot: Path, out: Path, options: ViewOptions) -> Path:
    """Write a page with the key frames of a data root, their boxes drawn in.

    Args:
        dataroot: nuScenes data root, real or synthetic.
        out: folder for `index.html` and the pictures.
        options: what is drawn.

    Returns:
        The page.

    Raises:
        DataError: no key frame has all its images.
    """
    detector = None
    if options.checkpoint:
        detector = Detector.load(
            options.checkpoint, device=options.device, precision=options.precision
        )
    # A detector's own classes, unless others are asked for.
    tables = replace(options, config=options.config or options.checkpoint).tables(dataroot)
    scenes = (options.scene,) if options.scene else tables.scene_names
    samples = [(name, token) for name in scenes for token in tables.samples(name)]
    there = [(name, token) for name, token in samples if tables.has_images(token)]
    if not there:
        raise DataError(
            f"none of the {len(samples)} key frames has all its images under {dataroot}; unpack "
            "the image archives there, or choose another --scene"
        )
    if absent := len(samples) - len(there):
        _LOG.warning("%d of %d key frames lack images and are left out", absent, len(samples))
    chosen = there[: options.limit]
    summary = [
        ("tables", tables.version),
        ("scenes", str(len({name for name, _ in chosen}))),
        ("key frames", str(len(chosen))),
        ("student", options.checkpoint.name if options.checkpoint else "none"),
    ]
    frames = _frames(tables, chosen, detector, options)
    if options.animation:
        frames = animated(frames, options.animation)
    return write_page(
        out, f"{dataroot.absolute().name}: {options.scene or 'all scenes'}", summary, frames
    )


def lidar_points(tables: NuScenesTables, token: str) -> Array | None:
    """(P, 3) points of a sample's scan in the ego frame at the scan; None when there is no file.

    Raises:
        DataError: the file is no nuScenes scan.
    """
    if not tables.has_scan(token):
        return None
    record = tables.lidar(token)
    return record.ego_from_sensor.apply(record.scan()[:, :3])


def _frames(
    tables: NuScenesTables,
    samples: list[tuple[str, str]],
    detector: Detector | None,
    options: ViewOptions,
) -> Iterator[PageFrame]:
    """Made one by one, in the order of time within each scene, as a detector needs it."""
    class_names = detector.class_names if detector else tables.class_list.names
    grid = detector.config.grid if detector else None
    reach_m = max(map(abs, (*grid.x_m, *grid.y_m))) if grid else 0.0
    identity = Transform.identity(FIXED_FRAME, FIXED_FRAME)
    before = ""
    for name, token in samples:
        if detector and name != before:
            detector.reset()
        before = name
        frames, predicted = tables.frame_set(token), Boxes3D.empty(FIXED_FRAME)
        if detector:
            predicted = detector.detect(frames).in_frame(identity)
            predicted = predicted[predicted.scores >= options.min_score]
        frame = key_frame(
            tables,
            token,
            predicted,
            frames,
            class_names=class_names,
            lidar=options.lidar,
            range_m=reach_m,
        )
        if detector:
            found = f", {len(predicted)} found with a score of at least {options.min_score:g}"
            frame = replace(frame, caption=frame.caption + found)
        yield frame


def key_frame(
    tables: NuScenesTables,
    token: str,
    predicted: Boxes3D,
    frames: FrameSet | None = None,
    *,
    class_names: Sequence[str] = CLASSES,
    lidar: bool = False,
    range_m: float = 0.0,
) -> PageFrame:
    """A sample as pictures: its cameras and the view from above, with true and found boxes.

    Args:
        tables: of the data root.
        token: of the sample.
        predicted: in the fixed frame.
        frames: the sample's images; read from the data root when None.
        class_names: names of the predictions' labels.
        lidar: paint the LiDAR's points into the images.
        range_m: what the view from above shows, if that is more than how far boxes are scored.

    Raises:
        DataError: an image or the scan is missing or corrupt.
    """
    frames = frames or tables.frame_set(token)
    truth = tables.ground_truth(token)
    boxes = truth.boxes[torch.from_numpy(truth.touched)]
    points = lidar_points(tables, token)
    if lidar and points is not None:
        # By way of the map, since each camera exposes elsewhere than the scan was taken.
        placed = truth.fixed_from_ego.apply(points)
        frames = replace(frames, views=tuple(with_points(v, placed) for v in frames.views))
    scene = tables.scene_of(token)
    begin = tables.samples(scene)[0]
    elapsed_s = (tables.stamp_ns(token) - tables.stamp_ns(begin)) / 1e9
    return PageFrame.drawn(
        f"{scene}, after {elapsed_s:.1f} s, sample {token}: {len(boxes)} true boxes",
        frames,
        predicted,
        boxes,
        truth.fixed_from_ego,
        lidar_points=points,
        class_names=class_names,
        range_m=max(range_m, *truth.classes.ranges_m),
    )
