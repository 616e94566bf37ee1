# SPDX-License-Identifier: Apache-2.0
"""Key frames of a bag as the detector sees them, and the bag's transforms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from labeldistill_core.cameras import EGO_FRAME, FIXED_FRAME, CameraView, FrameSet
from labeldistill_core.errors import BagError, DataError
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.truth import BagSample, read_samples
from labeldistill_ros.inputs.decoding import to_rgb
from labeldistill_ros.inputs.transforms import TransformBuffer, TransformError
from labeldistill_ros.messages.calibration import calibration_from_info
from labeldistill_ros.messages.stamps import stamp_of

BASE_FRAME = "base_link"
_FOREVER_S = 1e9


def read_transforms(bag: BagReader) -> TransformBuffer:
    """All transforms of a bag, at all times."""
    buffer = TransformBuffer(keep_s=_FOREVER_S, jump_s=_FOREVER_S)
    for topic in ("/tf", "/tf_static"):
        if topic not in bag.topics:
            continue
        for _, message in bag.messages([topic]):
            for stamped in message.transforms:
                turn, shift = stamped.transform.rotation, stamped.transform.translation
                buffer.add(
                    stamped.header.frame_id,
                    stamped.child_frame_id,
                    stamp_of(stamped),
                    (turn.w, turn.x, turn.y, turn.z),
                    (shift.x, shift.y, shift.z),
                    static=topic == "/tf_static",
                )
    return buffer


def read_frame_sets(bag: BagReader) -> Iterator[tuple[BagSample, FrameSet]]:
    """Samples in the order of time with their decoded images.

    Raises:
        BagError: an image, a calibration or a transform of a sample is missing or damaged.
    """
    transforms = read_transforms(bag)
    waiting = read_samples(bag)
    prefixes = {name: f"/{name.lower()}" for s in waiting for name in s.camera_stamps_ns}
    images = {f"{prefix}/image_raw/compressed": name for name, prefix in prefixes.items()}
    infos = {f"{prefix}/camera_info": name for name, prefix in prefixes.items()}
    calibrations: dict[str, Any] = {}
    taken: dict[tuple[str, int], Any] = {}
    waiting = [sample for sample in waiting if sample.camera_stamps_ns]
    for recorded, message in bag.messages([*infos, *images]):
        if recorded.topic in infos:
            calibrations[infos[recorded.topic]] = message
            continue
        taken[images[recorded.topic], stamp_of(message)] = message
        while waiting and all(item in taken for item in waiting[0].camera_stamps_ns.items()):
            sample = waiting.pop(0)
            try:
                views = [
                    camera_view(name, taken[name, stamp_ns], calibrations.get(name), transforms)
                    for name, stamp_ns in sample.camera_stamps_ns.items()
                ]
            except (DataError, TransformError) as error:
                token = sample.truth.sample_token
                raise BagError(f"{bag.path}: sample {token}: {error}") from error
            yield sample, FrameSet(sample.truth.stamp_ns, tuple(views))
            newest = max(sample.camera_stamps_ns.values())
            taken = {key: value for key, value in taken.items() if key[1] > newest}
    if waiting:
        token = waiting[0].truth.sample_token
        raise BagError(f"{bag.path} lacks images of sample {token}; convert the scene anew")


def camera_view(name: str, image: Any, info: Any, transforms: TransformBuffer) -> CameraView:
    """An image with its calibration and pose.

    Args:
        name: of the camera.
        image: `CompressedImage`.
        info: its `CameraInfo`; None when there was none.
        transforms: of the bag.

    Raises:
        DataError: the image is damaged or of another size, or there is no calibration.
        TransformError: a pose is missing.
    """
    if info is None:
        raise DataError(f"{name}: no camera_info before its first image")
    stamp_ns = stamp_of(image)
    mounted = transforms.lookup(BASE_FRAME, image.header.frame_id, stamp_ns)
    pose = transforms.lookup(FIXED_FRAME, BASE_FRAME, stamp_ns)
    mounted = replace(mounted, target=EGO_FRAME, source=name)
    calibration = calibration_from_info(name, info, mounted)
    pixels = to_rgb(image, largest_wh=(calibration.width_px, calibration.height_px))
    return CameraView(calibration, stamp_ns, pixels, replace(pose, source=EGO_FRAME))
