# SPDX-License-Identifier: Apache-2.0
"""The synthetic world as the vehicle itself would record it: bent images, true rates, delays.

A data root has what is left after rectification and after key frames were chosen; these bags have
what comes before, so that the way from a recording to a data set can be tried and proved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.data.tables.writing import SceneRows, token
from labeldistill_core.errors import BagError
from labeldistill_core.names import plain_text
from labeldistill_core.processes import worker_pool
from labeldistill_core.synthetic.annotating import Annotator
from labeldistill_core.synthetic.dataset import told_settings
from labeldistill_core.synthetic.driven import DrivenScene, SceneSettings
from labeldistill_core.synthetic.rig import KEY_FRAME_PERIOD_S, LIDAR, LIDAR_PERIOD_S, RigCamera
from labeldistill_ros.bags.message_types import with_data
from labeldistill_ros.bags.reader import read_marks
from labeldistill_ros.bags.sensors import (
    BASE_FRAME,
    MAP_FRAME,
    Entry,
    image_topic,
    info_topic,
    optical_frame,
    points_topic,
)
from labeldistill_ros.bags.truth import TRUTH_TOPIC
from labeldistill_ros.bags.writer import BagOutput, BagWriter, reliable
from labeldistill_ros.messages.bag_family import BAG
from labeldistill_ros.messages.boxes import detections_message
from labeldistill_ros.messages.calibration import camera_info
from labeldistill_ros.messages.geometry import transform_stamped
from labeldistill_ros.messages.stamps import header
from labeldistill_ros.messages.tables import cloud_message

_POSE_RATE_HZ = 100.0
_MARGIN_S = 0.25
"""Of driving before the first and after the last key frame."""
_CAMERA_DELAY_S, _LIDAR_DELAY_S = 0.03, 0.01
"""From an exposure, or the end of a turn, until the message is recorded."""
_ROWS = np.dtype([(name, "<f4") for name in ("x", "y", "z", "intensity", "ring")])
_IMAGE, _CLOUD = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/PointCloud2"
_TF = "tf2_msgs/msg/TFMessage"


def record_worlds(
    settings: Sequence[SceneSettings], folder: Path, output: BagOutput, *, workers: int
) -> Iterator[Path]:
    """Write `folder/<scene>` for each scene; one that is there is kept if it is the same.

    Args:
        settings: of the scenes.
        folder: made if absent.
        output: how the bags are written.
        workers: processes.

    Yields:
        Bags in the order in which they are done.

    Raises:
        BagError: one cannot be written, or is there already and of other settings.
        ConfigError: a lens of the rig bends its image in no possible way.
    """
    todo = [s for s in settings if output.force or not _is_there(folder / s.name, s)]
    yield from (folder / s.name for s in settings if s not in todo)
    if workers <= 1 or len(todo) <= 1:
        for own in todo:
            yield record_world(own, folder / own.name, output)
        return
    # Spawned, since a fork would copy the threads' locks of whoever calls.
    with worker_pool(workers, "spawn") as pool:
        futures = [pool.submit(record_world, own, folder / own.name, output) for own in todo]
        for future in as_completed(futures):
            yield future.result()


def _marks(settings: SceneSettings) -> dict[str, str]:
    # Sweeps do not matter, as everything is recorded.
    told = told_settings(replace(settings, sweeps="none"))
    return {"synthetic_scene": settings.name, "settings": told}


def _is_there(bag: Path, settings: SceneSettings) -> bool:
    """Whether a scene is recorded already; see `_marks`."""
    if not bag.exists() or (bag.is_dir() and not any(bag.iterdir())):
        return False
    try:
        found = read_marks(bag)
    except BagError as error:
        raise BagError(
            f"{bag} is there already, and nobody knows of which settings: use another folder, or "
            f"remove it ({error})"
        ) from error
    if found == _marks(settings):
        return True
    told = found.get("settings")
    of = f"recorded with other settings ({plain_text(told, 500)})" if told else "not made by this"
    raise BagError(f"{bag} is there already, {of}: use another folder, or remove it")


def record_world(settings: SceneSettings, bag: Path, output: BagOutput) -> Path:
    """Drive a scene and record it; returns the bag.

    Args:
        settings: of the scene; its sweeps do not matter, as everything is recorded.
        bag: folder to make.
        output: how it is written.

    Raises:
        BagError: it cannot be written.
        ConfigError: a lens of the rig bends its image in no possible way.
    """
    driven = DrivenScene(settings)
    entries = [*_images(driven), *_scans(driven), *_poses(driven), *_labels(driven, settings)]
    entries.sort(key=lambda entry: (entry.stamp_ns, entry.topic))
    about = _marks(settings)
    with BagWriter(bag, storage=output.storage, force=output.force, about=about) as writer:
        for entry in (_mountings(driven, entries[0].stamp_ns), *entries):
            writer.write(entry.topic, entry.msgtype, entry.build(), entry.stamp_ns, entry.qos)
    return bag


def _times(driven: DrivenScene, rate_hz: float, phase_s: float) -> list[float]:
    """Times of a sensor that runs freely, with one at the phase of the first key frame."""
    first = math.ceil((-_MARGIN_S - phase_s) * rate_hz)
    last = math.floor((driven.duration_s + _MARGIN_S - phase_s) * rate_hz)
    return [phase_s + i / rate_hz for i in range(first, last + 1)]


def _ns(driven: DrivenScene, time_s: float) -> int:
    return driven.stamp_us(time_s) * 1000


def _images(driven: DrivenScene) -> Iterator[Entry]:
    for camera in driven.rig.cameras:
        frame = optical_frame(camera.name)
        for time_s in _times(driven, camera.rate, camera.phase):
            stamp_ns = _ns(driven, time_s)
            log_ns = stamp_ns + round(_CAMERA_DELAY_S * 1e9)
            info = _built(_info, camera, stamp_ns, frame)
            yield Entry(log_ns, info_topic(camera.name), "sensor_msgs/msg/CameraInfo", info)
            image = _built(_image, driven, camera, time_s, stamp_ns, frame)
            yield Entry(log_ns, image_topic(camera.name), _IMAGE, image)


def _built(build: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    # a function of its own, as a lambda in a loop would see what the loop ends with
    return lambda: build(*args)


def _image(driven: DrivenScene, camera: RigCamera, time_s: float, stamp_ns: int, frame: str) -> Any:
    data = driven.jpeg(camera.name, time_s, bent=True)
    empty = BAG.make(_IMAGE, header=header(stamp_ns, frame, BAG), format="jpeg")
    return with_data(_IMAGE, empty, data, behind=0)


def _info(camera: RigCamera, stamp_ns: int, frame: str) -> Any:
    info = camera_info(camera.intrinsics_px, camera.size, stamp_ns, frame, BAG)
    if lens := camera.distortion:
        info.distortion_model, info.d = lens.model, np.array(lens.coefficients, np.float64)
    return info


def _scans(driven: DrivenScene) -> Iterator[Entry]:
    for time_s in _times(driven, 1 / LIDAR_PERIOD_S, 0.0):
        stamp_ns = _ns(driven, time_s)
        build = _built(_cloud, driven, time_s, stamp_ns)
        yield Entry(stamp_ns + round(_LIDAR_DELAY_S * 1e9), points_topic(LIDAR), _CLOUD, build)


def _cloud(driven: DrivenScene, time_s: float, stamp_ns: int) -> Any:
    rows = driven.points(time_s).view(_ROWS).reshape(-1)
    return cloud_message(rows, stamp_ns, LIDAR.lower(), BAG)


def _poses(driven: DrivenScene) -> Iterator[Entry]:
    for time_s in _times(driven, _POSE_RATE_HZ, 0.0):
        stamp_ns, pose = _ns(driven, time_s), driven.map_from_ego(time_s)
        moved = transform_stamped(pose, stamp_ns, MAP_FRAME, BASE_FRAME, BAG)
        yield Entry(stamp_ns, "/tf", _TF, _built(_transforms, [moved]), reliable(100))


def _transforms(transforms: list[Any]) -> Any:
    return BAG.make(_TF, transforms=transforms)


def _mountings(driven: DrivenScene, stamp_ns: int) -> Entry:
    mounted = [(optical_frame(c.name), c.ego_from_camera) for c in driven.rig.cameras]
    mounted.append((LIDAR.lower(), driven.rig.ego_from_lidar))
    transforms = [
        transform_stamped(pose, stamp_ns, BASE_FRAME, frame, BAG) for frame, pose in mounted
    ]
    build = _built(_transforms, transforms)
    return Entry(stamp_ns, "/tf_static", _TF, build, reliable(1, latched=True))


def _labels(driven: DrivenScene, settings: SceneSettings) -> Iterator[Entry]:
    """What an annotator of the key frames would write, as messages."""
    rows = SceneRows(settings.name, settings.seed)
    annotator = Annotator(driven, rows)
    times = [k * KEY_FRAME_PERIOD_S for k in range(settings.key_frames)]
    samples = rows.add_samples(driven.stamp_us(time_s) for time_s in times)
    for k, (time_s, sample) in enumerate(zip(times, samples, strict=True)):
        annotator.annotate(k, sample, driven.points(time_s))
    annotator.finish()
    names = sorted({actor.class_name for actor in driven.actors})
    labels = {token("category", name): label for label, name in enumerate(names)}
    label_of = {r["token"]: labels[r["category_token"]] for r in rows.tables["instance"]}
    for time_s, sample in zip(times, samples, strict=True):
        found = [r for r in rows.tables["sample_annotation"] if r["sample_token"] == sample]
        values = [
            [
                *r["translation"],
                r["size"][1],
                r["size"][0],
                r["size"][2],
                2 * math.atan2(r["rotation"][3], r["rotation"][0]),
                math.nan,
                math.nan,
            ]
            for r in found
        ]
        boxes = Boxes3D(
            MAP_FRAME,
            torch.tensor(values, dtype=torch.float64).reshape(-1, 9),
            torch.tensor([label_of[r["instance_token"]] for r in found], dtype=torch.int64),
            torch.ones(len(found)),
        )
        stamp_ns = _ns(driven, time_s)
        ids = [r["instance_token"] for r in found]
        build = _built(detections_message, boxes, names, stamp_ns, ids, BAG)
        log_ns = stamp_ns + round(_LIDAR_DELAY_S * 1e9)
        yield Entry(log_ns, TRUTH_TOPIC, "vision_msgs/msg/Detection3DArray", build)
