# SPDX-License-Identifier: Apache-2.0
"""All checks of a vehicle, in the order in which one would mend what they find."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from labeldistill_core.errors import ConfigError
from labeldistill_core.profiling.bench import without_notices
from labeldistill_core.runtime.detector import Detector
from labeldistill_ros.doctor.finding import Finding
from labeldistill_ros.doctor.pictures import Pictures
from labeldistill_ros.doctor.poses import check_poses
from labeldistill_ros.doctor.source import Source
from labeldistill_ros.doctor.speed import check_history, check_model, check_speed
from labeldistill_ros.doctor.streams import check_arrival, check_clocks, check_stamps
from labeldistill_ros.doctor.topics import check_topics
from labeldistill_ros.node.model import load_detector
from labeldistill_ros.parameter_file import GivenParameters
from labeldistill_ros.parameters import VehicleParameters

Observe = Callable[[VehicleParameters, GivenParameters], Source]
"""Watches a vehicle that has these parameters."""


@dataclass(frozen=True)
class DoctorOptions:
    """What the node is told, and how long the vehicle is watched."""

    params_file: Path | None = None
    """Parameter file of the node, as its launch file takes it; all at default when not given."""
    node: str = "detector"
    """Name of the node with its namespace, for the sections of the parameter file."""
    model: Path | None = None
    """Student checkpoint or graph; that of the parameter file when not given."""
    device: str | None = None
    """Where the network runs; as the parameter file says when not given."""
    seconds: float = 6.0
    """How long a live system is watched; a bag is read to its end."""
    speed: bool = True
    """Measure how many sets a second this machine gives; it takes all cores for some seconds."""

    def __post_init__(self) -> None:
        """Refuse times that are none."""
        if not 0 < self.seconds < math.inf:
            raise ConfigError(f"--seconds {self.seconds:g}: give seconds, more than 0")

    def given(self) -> GivenParameters:
        """What is set of the node's parameters.

        Raises:
            ConfigError: the parameter file is none.
            OSError: it cannot be read.
        """
        given = GivenParameters()
        if self.params_file:
            given = GivenParameters.of_file(self.params_file, self.node)
        own = {"model": self.model and str(self.model), "device": self.device}
        values = {name: value for name, value in own.items() if value is not None}
        return replace(given, values={**given.values, **values})


def examine(observe: Observe, options: DoctorOptions) -> list[Finding]:
    """Watch a vehicle and check all that the node needs of it.

    Args:
        observe: watches it, in a bag or live.
        options: parameters.

    Raises:
        ConfigError: the node would not start with these parameters.
        CheckpointError: nor with this model.
        BagError: the bag cannot be read.
    """
    given = options.given()
    # What a detector says of its device and its history is no finding.
    with without_notices():
        return _examined(load_detector(given.common()), given, observe, options)


def _examined(
    detector: Detector, given: GivenParameters, observe: Observe, options: DoctorOptions
) -> list[Finding]:
    cameras, classes = detector.config.cameras, detector.class_names
    vehicle = given.vehicle(cameras, classes)
    unknown = given.unknown(cameras, classes)
    found = [Finding("parameters", "warning", text) for text in unknown]
    found += check_model(detector, named=bool(given.common().model))
    source = observe(vehicle, given)
    seen = source.seen
    # After the observation and not during it: decoding would take the time in which live messages
    # have to be fetched, and look like a slow camera.
    pictures = Pictures(seen, source.lookup, detector.config.image)
    found += [
        *check_topics(vehicle, source.types),
        *source.connections,
        *check_arrival(seen, source.silent),
        *pictures.check(),
        *check_stamps(seen),
        *check_clocks(seen, source.clock),
        *check_poses(seen, source.lookup, source.refused),
    ]
    rate_hz, most_hz = seen.rate_hz, vehicle.common.max_rate
    tolerance_s = vehicle.common.history.tolerance
    # Sets come no more often than images do, nor than `max_rate` lets through.
    found += check_history(detector.config.history_s, tolerance_s, min(rate_hz, most_hz or rate_hz))
    if options.speed:
        found.append(check_speed(detector, pictures.decode_s, rate_hz, most_hz))
    return found
