# SPDX-License-Identifier: Apache-2.0
"""What the node makes when it is configured: parameters that hold, the network, the publishers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rclpy.lifecycle import LifecycleNode

from labeldistill_core.errors import ConfigError
from labeldistill_core.names import shown
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.runtime.warm_up import warm_up
from labeldistill_ros.inputs.topics import CameraTopics
from labeldistill_ros.node.model import LoadDetector
from labeldistill_ros.outputs.publishers import Outputs
from labeldistill_ros.parameter_store import ParameterStore
from labeldistill_ros.parameters import Parameters, VehicleParameters
from labeldistill_ros.sets.options import assembly_options, make_synchronizer


@dataclass(frozen=True, eq=False)
class Configuration:
    """What exists while the node is inactive or active."""

    vehicle: VehicleParameters
    """All parameters; those that may change are as they were when the node was configured."""
    topics: dict[str, CameraTopics]
    """Topics of each camera that the vehicle has, in the order of the model."""
    detector: Detector
    """The detector with its network on its device, warmed up."""
    outputs: Outputs
    """Publishers of boxes, status, latencies and overlays; advertised, and silent until active."""
    step_s: float | None
    """Seconds that the detector took for a set, where it was warmed up."""

    @property
    def parameters(self) -> Parameters:
        """Parameters that are not those of single cameras or classes."""
        return self.vehicle.common

    def model(self) -> dict[str, Any]:
        """What /diagnostics tells of the model now."""
        detector = self.detector
        return {
            **_of_device(detector.device),
            "name": Path(self.parameters.model).name or "demo",
            "sha256": detector.checkpoint_sha256,
            "backend": detector.engine.info.backend,
            "device": str(detector.device),
            "precision": detector.precision,
            "history": len(detector.config.history_s),
        }


def configure(node: LifecycleNode, store: ParameterStore, load: LoadDetector) -> Configuration:
    """Read the parameters, load the model, try it and advertise.

    Raises:
        ConfigError: the parameters contradict each other, the model or ROS.
        CheckpointError: the model's file is missing, damaged or does not fit.
    """
    # In two steps, since the model says of which cameras and classes there are parameters.
    parameters = store.declare(Parameters())
    detector = load(parameters)
    cameras = detector.config.cameras
    vehicle = store.vehicle(cameras, detector.class_names)
    make_synchronizer(vehicle)  # what is wrong with its parameters is better told now
    assembly_options(vehicle)
    topics = {
        camera: CameraTopics.of(camera, parameters, own) for camera, own in vehicle.cameras.items()
    }
    _check_topics(node, vehicle, topics)
    # Before the publishers: who waits for the node's topics finds it ready.
    step_s = warm_up(detector, parameters.warmup_iterations)
    outputs = Outputs(node, detector.class_names, tuple(vehicle.cameras))
    return Configuration(vehicle, topics, detector, outputs, step_s)


def _of_device(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {}
    # Reserved and not allocated: it is what others on the GPU cannot have.
    used_mib = torch.cuda.memory_reserved(device) / 2**20
    return {"gpu": torch.cuda.get_device_name(device), "gpu_memory_mib": used_mib}


def _check_topics(
    node: LifecycleNode, vehicle: VehicleParameters, topics: dict[str, CameraTopics]
) -> None:
    """See that ROS takes the names of topics, and that each is of one thing.

    Raises:
        ConfigError: naming the parameters that lead to a bad one.
    """
    names: list[tuple[str, str, str]] = []
    if vehicle.common.ego_motion_source == "odometry":
        names.append(("odometry_topic", vehicle.common.odometry_topic, "odometry"))
    for camera, own in vehicle.cameras.items():
        image, info = topics[camera].image, topics[camera].info
        for field, name, what in (
            ("image_topic", image, f"the images of {camera}"),
            ("info_topic", info, "camera_info"),  # which cameras may share
        ):
            given = getattr(own, field)
            names.append((f"cameras.{camera}.{field}" if given else "camera_prefix", name, what))
    taken: dict[str, tuple[str, str]] = {}
    for parameter, name, what in names:
        try:
            # Asked of ROS now: a subscription with a bad name would fail only when the node is
            # activated.
            resolved = node.resolve_topic_name(name)
        except RuntimeError as error:
            raise ConfigError(
                f"parameter {parameter} leads to the topic {shown(name)}, which is no name of a "
                "topic: use letters, digits, _ and /, such as /sensing/cam_front/image_raw"
            ) from error
        first, before = taken.setdefault(resolved, (parameter, what))
        if before != what:
            raise ConfigError(
                f"{before} and {what} would both come from the topic {resolved}: name one of their "
                f"own for each, by {first}, {parameter} or remapping"
            )
