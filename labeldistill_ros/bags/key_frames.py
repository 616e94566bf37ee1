# SPDX-License-Identifier: Apache-2.0
"""Key frames of a bag as the detector sees them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from labeldistill_core.cameras import FrameSet
from labeldistill_core.errors import BagError
from labeldistill_ros.bags.poses import read_poses
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.truth import BagSample, read_samples
from labeldistill_ros.inputs.topics import CameraTopics, recorded_cameras
from labeldistill_ros.messages.stamps import stamp_of
from labeldistill_ros.parameters import Parameters, VehicleParameters
from labeldistill_ros.sets.arrival import Arrival, ClosedSet
from labeldistill_ros.sets.assembly import Assembler, SetError
from labeldistill_ros.sets.options import assembly_options
from labeldistill_ros.sync.synchronizer import CameraSet, Frame

_THREADS = 6
"""Number of threads that decode images."""


def read_frame_sets(bag: BagReader) -> Iterator[tuple[BagSample, FrameSet]]:
    """Samples in the order of time with their decoded images.

    Raises:
        BagError: an image, a calibration or a transform of a sample is missing or damaged.
    """
    waiting = [sample for sample in read_samples(bag) if sample.camera_stamps_ns]
    names = list(dict.fromkeys(name for s in waiting for name in s.camera_stamps_ns))
    if not names:
        return
    # in the fixed frame nobody asks for the vehicle's pose at a stamp without an image
    common = Parameters(missing_pose_policy="required", output_frame="map")
    vehicle = VehicleParameters(common, recorded_cameras(bag.topics, names, common), {})
    topics = {name: CameraTopics.of(name, common, own) for name, own in vehicle.cameras.items()}
    images = {topic.image: name for name, topic in topics.items()}
    infos = {topic.info: name for name, topic in topics.items()}
    calibrations: dict[str, Any] = {}
    taken: dict[tuple[str, int], Any] = {}
    # A sample with a camera that cannot be used is refused below, with all of its problems.
    options = replace(assembly_options(vehicle), min_cameras=1)
    with Assembler(options, read_poses(bag, common), _THREADS) as assembler:
        for recorded, message in bag.messages([*infos, *images]):
            if recorded.topic in infos:
                calibrations[infos[recorded.topic]] = message
                continue
            taken[images[recorded.topic], stamp_of(message)] = message
            while waiting and all(item in taken for item in waiting[0].camera_stamps_ns.items()):
                sample = waiting.pop(0)
                yield sample, _frame_set(bag, sample, taken, calibrations, assembler)
                newest = max(sample.camera_stamps_ns.values())
                # Images up to this sample's newest belong to no later one, and would fill the
                # memory.
                taken = {key: value for key, value in taken.items() if key[1] > newest}
    if waiting:
        token = waiting[0].truth.sample_token
        raise BagError(f"{bag.path} lacks images of sample {token}; convert the scene anew")


def _frame_set(
    bag: BagReader,
    sample: BagSample,
    taken: Mapping[tuple[str, int], Any],
    calibrations: Mapping[str, Any],
    assembler: Assembler,
) -> FrameSet:
    """The images of a sample, all of them.

    Raises:
        BagError: naming the sample and what cannot be used.
    """
    frames = {
        name: Frame(stamp_ns, 0.0, Arrival(taken[name, stamp_ns], calibrations.get(name)))
        for name, stamp_ns in sample.camera_stamps_ns.items()
    }
    anchor = next(iter(frames))
    images = CameraSet(anchor, sample.truth.stamp_ns, frames, (), usable=True, waited_s=0.0)
    where = f"{bag.path}: sample {sample.truth.sample_token}"
    try:
        assembled = assembler.assemble(ClosedSet(images, calibrations, 0.0))
    except SetError as error:
        raise BagError(f"{where}: {error}") from error
    if assembled.problems:
        raise BagError(f"{where}: {'; '.join(p.text for p in assembled.problems)}")
    return assembled.frames
