# SPDX-License-Identifier: Apache-2.0
"""Can the images be used: encodings, sizes, calibrations, mountings?"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from statistics import median

from labeldistill_core.config import ImageConfig
from labeldistill_core.data.crop import lost_horizons
from labeldistill_ros.doctor.finding import Finding, by_camera
from labeldistill_ros.doctor.observation import Observation
from labeldistill_ros.inputs.topics import CameraTopics
from labeldistill_ros.inputs.transforms import Lookup
from labeldistill_ros.messages.calibration import why_ambiguous
from labeldistill_ros.sets.assembly import Assembler, Cause, Problem, SetError
from labeldistill_ros.sets.options import assembly_options
from labeldistill_ros.sets.plausibility import implausible

_CHECKS: dict[Cause, str] = {
    "image": "images",
    "camera_info": "calibration",
    "transform": "mountings",
}
"""What was looked at, by the cause of a problem."""


class Pictures:
    """A few images of each camera, taken through the node's assembly."""

    def __init__(self, seen: Observation, lookup: Lookup, image: ImageConfig) -> None:
        """Decode and calibrate them.

        Args:
            seen: what came.
            lookup: gives the transform between two ROS frames at a stamp.
            image: what the network takes.
        """
        self._seen = seen
        self.decode_s = 0.0
        """Time to decode the images of a set; 0 where none could be."""
        self._problems: list[Problem] = []
        self._odd: dict[str, str] = {}
        self._cut: dict[str, str] = {}
        self._sizes: Counter[str] = Counter()
        # Each camera by itself, in the vehicle's frame: poses are looked at elsewhere.
        base = seen.vehicle.common.base_frame
        options = replace(
            assembly_options(seen.vehicle), min_cameras=1, pose="none", output_frame=base
        )
        took_ms = []
        with Assembler(options, lookup, len(seen.cameras)) as assembler:
            for closed in seen.rounds():
                try:
                    found = assembler.assemble(closed)
                except SetError as error:
                    # A set that is refused tells as much as one that is not; the next may be sound.
                    self._problems += error.problems
                    continue
                self._problems += found.problems
                views = found.frames.views
                took_ms.append(found.timings_ms["decode_images"])
                self._odd |= implausible(views, found.optical_frames)
                self._cut |= lost_horizons((view.calibration for view in views), image)
                for view in views:
                    height, width = view.image.shape[:2]
                    self._sizes[f"{width} x {height}"] += 1
        if took_ms:
            self.decode_s = median(took_ms) / 1e3

    def check(self) -> list[Finding]:
        """What is wrong with the images and with what belongs to them."""
        sizes = ", ".join(self._sizes) or "none"
        vehicle, infos = self._seen.vehicle, self._seen.gathering.infos
        missing = {
            name: f"{name}: images come, but no camera_info: publish it with each image, or once "
            f"and latched; see cameras.{name}.info_topic"
            for name in self._seen.seen
            if name not in infos
        }
        found = []
        if images := self._of_cause("image"):
            found += by_camera("images", images, "")
        elif self._sizes:
            found.append(Finding("images", "ok", f"decoded, of {sizes} pixels"))
        calibrations = missing | {
            name: text for name, text in self._of_cause("camera_info").items() if name in infos
        }
        fine = "camera_info fits the images" if self._sizes else ""
        found += by_camera("calibration", calibrations, fine)
        if not vehicle.common.images_rectified:
            found += by_camera("calibration", self._ambiguous(), "", "warning")
        mend = ": publish a static transform of its optical frame, see docs/node.md"
        unmounted = {name: text + mend for name, text in self._of_cause("transform").items()}
        found += by_camera("mountings", unmounted | self._odd, fine and "as the names say")
        return found + by_camera("horizon", self._cut, fine and "within what the network sees")

    def _of_cause(self, cause: Cause) -> dict[str, str]:
        # The first problem of each camera wins: later rounds mostly repeat it.
        return {p.camera: p.text for p in reversed(self._problems) if p.cause == cause}

    def _ambiguous(self) -> dict[str, str]:
        vehicle = self._seen.vehicle
        texts = {
            name: why_ambiguous(
                name,
                CameraTopics.of(name, vehicle.common, vehicle.cameras[name]).info,
                info,
            )
            for name, info in self._seen.gathering.infos.items()
        }
        return {name: text for name, text in texts.items() if text}
