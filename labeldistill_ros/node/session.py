# SPDX-License-Identifier: Apache-2.0
"""What exists while the node is configured, and what while it is active."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rclpy.lifecycle import LifecycleNode

from labeldistill_core.errors import ConfigError
from labeldistill_core.runtime.detector import Detector
from labeldistill_ros.inputs.pose_listener import OdometryListener, TransformListener
from labeldistill_ros.inputs.subscriptions import CameraSubscriptions, CameraTopics, ImageMessage
from labeldistill_ros.node.health import Health, Limits
from labeldistill_ros.node.pipeline import Job, OnResult, Pipeline
from labeldistill_ros.node.ros_logging import ThrottledLog
from labeldistill_ros.node.worker import NewestWorker
from labeldistill_ros.outputs.publishers import Outputs
from labeldistill_ros.parameters import CameraParameters, Parameters, sync_options
from labeldistill_ros.sets.assembly import Arrival, Assembler, AssemblyOptions
from labeldistill_ros.sync.approximate import ApproximateSynchronizer
from labeldistill_ros.sync.discontinuity import Continuity
from labeldistill_ros.sync.rate_limit import RateLimit
from labeldistill_ros.sync.synchronizer import Synchronizer


@dataclass(frozen=True, eq=False)
class Configured:
    """What exists while the node is inactive or active."""

    parameters: Parameters
    """All but those of the single cameras."""
    cameras: dict[str, CameraParameters]
    """By name, in the order of the model."""
    detector: Detector
    """The network."""
    outputs: Outputs
    """The publishers."""
    step_s: float | None
    """How long the detector took for a set, where it was warmed up."""

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


def _of_device(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {}
    used_mib = torch.cuda.memory_reserved(device) / 2**20
    return {"gpu": torch.cuda.get_device_name(device), "gpu_memory_mib": used_mib}


@dataclass(frozen=True, eq=False)
class Active:
    """What exists while the node is active."""

    listener: TransformListener | OdometryListener
    """Poses."""
    subscriptions: CameraSubscriptions
    """Images and calibrations."""
    synchronizer: Synchronizer[Arrival] | ApproximateSynchronizer[Arrival]
    """Images to sets."""
    worker: NewestWorker[Job]
    """The thread that detects."""
    assembler: Assembler
    """Decodes."""
    pipeline: Pipeline
    """Sets to boxes."""
    health: Health
    """Counters."""
    rate: RateLimit
    """Holds back sets beyond `max_rate`."""
    started_s: float
    """Since when, steady clock."""


def check_topics(
    node: LifecycleNode, parameters: Parameters, cameras: Mapping[str, CameraParameters]
) -> None:
    """See that ROS takes the names of topics.

    Raises:
        ConfigError: naming the parameter that leads to a bad one.
    """
    names: dict[str, str] = {}
    if parameters.ego_motion_source == "odometry":
        names["odometry_topic"] = parameters.odometry_topic
    for camera, own in cameras.items():
        topics = CameraTopics.of(camera, parameters, own)
        for topic, field in ((topics.image, "image_topic"), (topics.info, "info_topic")):
            given = getattr(own, field)
            names[f"cameras.{camera}.{field}" if given else "camera_prefix"] = topic
    for parameter, name in names.items():
        try:
            node.resolve_topic_name(name)
        except RuntimeError as error:
            raise ConfigError(
                f"parameter {parameter} leads to the topic {name!r}, which is no name of a topic: "
                "use letters, digits, _ and /, such as /sensing/cam_front/image_raw"
            ) from error


def activate(
    node: LifecycleNode,
    configured: Configured,
    log: ThrottledLog,
    on_image: Callable[[str, ImageMessage], None],
    on_result: OnResult | None,
) -> Active:
    """Subscribe and start the worker; all or nothing.

    Args:
        node: whose topics these are.
        configured: model, parameters and publishers.
        log: for complaints.
        on_image: called with each image in the thread that spins.
        on_result: see `OnResult`.
    """
    parameters, detector = configured.parameters, configured.detector
    detector.reset("activated")
    options = sync_options(parameters.sync, configured.cameras)
    topics = {
        camera: CameraTopics.of(camera, parameters, own)
        for camera, own in configured.cameras.items()
    }
    limits = parameters.diagnostics
    health = Health(
        {camera: topic.image for camera, topic in topics.items()},
        Limits(limits.camera_timeout, limits.max_processing_time, limits.max_delay),
        configured.model,
    )
    synchronizer: Synchronizer[Arrival] | ApproximateSynchronizer[Arrival] = (
        Synchronizer(options)
        if parameters.sync.policy == "anchor"
        else ApproximateSynchronizer(options, parameters.sync.slop)
    )
    with ExitStack() as undo:
        listener = _listener(node, parameters)
        undo.callback(listener.close)
        assembler = Assembler(
            AssemblyOptions.of(parameters, configured.cameras, options),
            listener.lookup,
            parameters.decode_threads or min(6, os.cpu_count() or 1),
        )
        undo.callback(assembler.close)
        pipeline = Pipeline(
            detector,
            assembler,
            configured.outputs,
            health,
            log,
            name=node.get_name(),
            now_ns=lambda: node.get_clock().now().nanoseconds,
            continuity=Continuity(parameters.history.reset_gap, parameters.history.max_speed),
            on_result=on_result,
        )
        subscriptions = CameraSubscriptions(node, topics, parameters.images_rectified, on_image)
        undo.pop_all()
    return Active(
        listener,
        subscriptions,
        synchronizer,
        NewestWorker(pipeline.run, "detect"),
        assembler,
        pipeline,
        health,
        RateLimit(),
        time.monotonic(),
    )


def _listener(node: LifecycleNode, parameters: Parameters) -> TransformListener | OdometryListener:
    transforms = TransformListener(node)
    if parameters.ego_motion_source == "none":
        node.get_logger().warning(
            "ego_motion_source is none: the vehicle's motion is unknown, so past frames are not "
            "used and boxes are less certain"
        )
    if parameters.ego_motion_source != "odometry":
        return transforms
    return OdometryListener(
        node,
        transforms,
        parameters.odometry_topic,
        parameters.fixed_frame,
        parameters.base_frame,
    )
