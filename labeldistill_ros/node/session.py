# SPDX-License-Identifier: Apache-2.0
"""What the node does while it is active, from its subscriptions to its health."""

from __future__ import annotations

import math
import os
import time
from contextlib import ExitStack
from typing import Any

from rclpy.lifecycle import LifecycleNode

from labeldistill_ros.inputs.clock import ClockJumps, why_no_clock
from labeldistill_ros.inputs.pose_listener import OdometryListener, TransformListener
from labeldistill_ros.inputs.publishers import several
from labeldistill_ros.inputs.subscriptions import CameraSubscriptions
from labeldistill_ros.node.configuration import Configuration
from labeldistill_ros.node.health import Health
from labeldistill_ros.node.intake import Intake
from labeldistill_ros.node.limits import Limits
from labeldistill_ros.node.live_parameters import LiveParameters
from labeldistill_ros.node.processing import OnResult, SetProcessor
from labeldistill_ros.node.ros_logging import ThrottledLog
from labeldistill_ros.node.standing import STANDING_PERIOD_S
from labeldistill_ros.parameter_store import ParameterStore
from labeldistill_ros.parameters import Parameters
from labeldistill_ros.sets.assembly import Assembler
from labeldistill_ros.sets.options import assembly_options, discontinuity_check, make_synchronizer
from labeldistill_ros.sets.pipeline import SetPipeline
from labeldistill_ros.sets.together import together

_PATIENCE_S = 3.0
"""After the start, silence of a camera is not spoken of for this long."""
_DECODE_S = 0.3
"""How long a set in work may take to end before its images are given up."""
_STOP_S = 10.0
"""How long the detector may take to end."""


class Session:
    """One activation of the node: from the first subscription to `close`."""

    def __init__(
        self,
        node: LifecycleNode,
        configuration: Configuration,
        store: ParameterStore,
        log: ThrottledLog,
        on_result: OnResult | None,
    ) -> None:
        """Subscribe and start the worker; all or nothing.

        Args:
            node: whose topics these are.
            configuration: model, parameters and publishers.
            store: of the node's parameters.
            log: for complaints.
            on_result: see `OnResult`.
        """
        self._node, self._log, self._outputs = node, log, configuration.outputs
        vehicle, parameters = configuration.vehicle, configuration.parameters
        cameras = configuration.detector.config.cameras  # those that are not enabled, too
        self._live = LiveParameters(store, cameras, tuple(vehicle.classes))
        limits = parameters.diagnostics
        self.health = Health(
            {c: node.resolve_topic_name(t.image) for c, t in configuration.topics.items()},
            Limits(limits.camera_timeout, limits.max_processing_time, limits.max_delay),
            configuration.model,
        )
        """What became of images and sets."""
        # The detector outlives the session, and its past is that of the last activation.
        configuration.detector.reset("activated")
        self._started_s = time.monotonic()
        self._resting = False
        self._told_threshold = math.nan
        self._clock = ClockJumps()
        with ExitStack() as undo:
            self._listener = _listener(node, parameters)
            undo.callback(self._listener.close)
            self._assembler = Assembler(
                assembly_options(vehicle),
                self._listener.lookup,
                parameters.decode_threads or min(len(vehicle.cameras), os.cpu_count() or 1),
                configuration.detector.config.image,
            )
            undo.callback(self._assembler.close)
            self._processor = SetProcessor(
                SetPipeline(
                    configuration.detector, self._assembler, discontinuity_check(parameters)
                ),
                configuration.outputs,
                self.health,
                log,
                self._live,
                name=_name(node),
                now_ns=lambda: node.get_clock().now().nanoseconds,
                on_result=on_result,
            )
            self.intake = Intake(
                node,
                make_synchronizer(vehicle),
                self._assembler,
                self._processor,
                self.health,
                log,
                self._live,
            )
            """Puts images together and hands sets to the worker's thread."""
            # Subscriptions come last: a message must find everything that it goes through.
            undo.callback(self.intake.close, _STOP_S)
            self._subscriptions = CameraSubscriptions(
                node, configuration.topics, parameters.images_rectified, self.intake.on_image
            )
            self.intake.infos = self._subscriptions.infos
            undo.pop_all()

    @property
    def given_up(self) -> str:
        """Why the detector is given up, where it is."""
        return self._processor.given_up

    @property
    def failed(self) -> bool:
        """Whether a set met an error of the node's own."""
        return bool(self.health.counts["unforeseen"]) or self.intake.worker.failed

    @property
    def wanted(self) -> bool:
        """Whether sets are processed: somebody listens, or the parameters say so."""
        return self._processor.wanted()

    def close(self) -> None:
        """Unsubscribe and end the worker."""
        self._subscriptions.close()
        self._listener.close()  # whoever waits for a pose goes on at once
        # First subscriptions, then poses, then the worker: nothing new comes in, and a set in work
        # does not wait for transforms that nobody receives any more.
        ended = self.intake.close(_DECODE_S)
        self._assembler.close()  # whoever waits for a decoder that hangs goes on at once
        if not ended and not self.intake.worker.stop(_STOP_S):
            self._node.get_logger().error(f"the detector did not end within {_STOP_S:g} s")

    def enable(self, enabled: bool) -> None:
        """Detect from now on, or let sets pass."""
        self._processor.enabled = enabled

    def reset_history(self, reason: str) -> None:
        """Forget past frames before the next set."""
        self._processor.reset_history(reason)

    def clock_went_back(self) -> None:
        """Start afresh, unless the clock goes back again and again."""
        if self._clock.went_back(time.monotonic()):
            self.intake.reset("the clock went back")

    def tell_labels(self) -> None:
        """Publish the classes' names with the threshold, where that is new; it is a live one."""
        self._live.refresh()
        threshold = self._live.common.score_threshold
        if threshold != self._told_threshold:
            self._told_threshold = threshold
            self._outputs.labels(threshold, self._node.get_clock().now().nanoseconds)

    def report(self) -> list[Any]:
        """Statuses for /diagnostics; what has to be complained about is logged."""
        self.tell_labels()
        self._subscriptions.ask_for_latched_infos()
        self._subscriptions.tell_incompatible()
        now_s, synchronizer = time.monotonic(), self.intake.synchronizer
        if now_s - self._started_s > _PATIENCE_S:
            self._complain(now_s)
        if not self.wanted:
            self.health.unwanted(now_s)
        counts = {
            **synchronizer.counts,
            "relearned": synchronizer.relearned,
            "anchor": synchronizer.anchor,
        }
        standing = self.health.watch(
            now_s,
            disagreeing_s=synchronizer.disagreeing_s,
            absent=synchronizer.absent,
            clock=why_no_clock(self._node) or self._clock.why_not_believed(self._node, now_s),
            # a second node of this name also gets half of the calls of services
            twin=several(self._node, "~/detections"),
        )
        for key, text in standing.items():
            self._log.warning(key, text, STANDING_PERIOD_S)
        period_s = self._live.common.period_s
        return self.health.diagnostics(
            _name(self._node), counts, synchronizer.offsets_s, now_s, period_s
        )

    def _complain(self, now_s: float) -> None:
        silent = self.health.silent_cameras(now_s)
        if self.health.cameras_rest(now_s):
            if not self._resting:
                self._resting = True
                self._node.get_logger().info("all cameras have stopped; waiting for images")
            return
        self._resting = False
        for text in together(self.intake.unstamped):
            self._log.warning(f"stamp/{text.partition(':')[0]}", text)
        outlived = self.health.outlived_cameras(now_s)
        why = {camera: self._subscriptions.why_silent(camera) for camera in outlived}
        for text in together(why):
            self._log.warning(f"silent/{text.partition(':')[0]}", text)
        for text in together(self._subscriptions.shared()):
            self._log.warning(f"shared/{text.partition(':')[0]}", text, STANDING_PERIOD_S)
        # A camera that sends nothing at all is told of once, by its images.
        without = [c for c in self._subscriptions.without_info() if c not in silent]
        why = {camera: self._subscriptions.why_without_info(camera) for camera in without}
        for text in together(why):
            self._log.warning(f"info/{text.partition(':')[0]}", text)


def _name(node: LifecycleNode) -> str:
    """What /diagnostics calls the node: with its namespace, since several nodes share the topic."""
    return node.get_fully_qualified_name().lstrip("/")


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
