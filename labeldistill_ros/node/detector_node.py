# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node `detector`: camera topics in, 3D boxes out. Wiring only.

The thread that spins the node takes messages and puts sets together; one worker thread decodes,
detects and publishes. A set that still waits when the next is there is dropped.
"""

from __future__ import annotations

import gc
import logging
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import rclpy
import rclpy.logging
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType, JumpThreshold  # type: ignore[attr-defined]
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from rclpy.timer import Timer
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger

from labeldistill_core.errors import LabelDistillError
from labeldistill_core.runtime.allocator import keep_freed_memory
from labeldistill_core.runtime.device import resolve_device
from labeldistill_core.runtime.warm_up import warm_up
from labeldistill_ros.inputs.subscriptions import ImageMessage
from labeldistill_ros.messages import header, stamp_to_ns
from labeldistill_ros.node.model import LoadDetector, load_detector
from labeldistill_ros.node.pipeline import Job, OnResult
from labeldistill_ros.node.ros_logging import RosHandler, ThrottledLog
from labeldistill_ros.node.session import Active, Configured, activate, check_topics
from labeldistill_ros.node.spinning import Spinner
from labeldistill_ros.outputs.publishers import Outputs
from labeldistill_ros.parameter_store import ParameterStore
from labeldistill_ros.parameters import (
    CameraParameters,
    ClassParameters,
    Parameters,
    sync_options,
)
from labeldistill_ros.sets.assembly import Arrival, Problem
from labeldistill_ros.sync.approximate import ApproximateSynchronizer
from labeldistill_ros.sync.synchronizer import CameraSet

_SOON_NS = 1_000_000
"""When a deadline that has passed is looked at."""
_PATIENCE_S = 3.0
"""After the start, silence of a camera is not spoken of for this long."""
_STOP_S = 10.0
"""How long a set in work may take to end."""

_SUCCESS, _FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
_ERROR = TransitionCallbackReturn.ERROR


class DetectorNode(LifecycleNode):
    """Six cameras in, `vision_msgs/Detection3DArray` out; see docs/node.md."""

    def __init__(
        self,
        name: str = "detector",
        *,
        load: LoadDetector = load_detector,
        on_result: OnResult | None = None,
        **kwargs: Any,
    ) -> None:
        """Declare the parameters; `start` or lifecycle transitions do the rest.

        Args:
            name: of the node.
            load: makes the detector when the node is configured.
            on_result: called in the worker thread with each frame set and its detections, before
                they are published.
            **kwargs: of `rclpy.node.Node`.

        Raises:
            ConfigError: a parameter has an impossible value.
        """
        super().__init__(name, **kwargs)
        self._load, self._on_result = load, on_result
        self._log = ThrottledLog(self.get_logger())
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._configured: Configured | None = None
        self._active: Active | None = None
        self._reporting: Timer | None = None
        self._revision = -1
        self.finished = False
        """Whether the node was shut down by a transition."""
        self._store = ParameterStore(self)
        self.autostart = self._store.declare(Parameters()).autostart
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._overdue = self.create_timer(1.0, self._on_overdue, clock=self._steady)
        self._overdue.cancel()
        self._jump = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False
            ),
            post_callback=lambda _: self._time_went_back("the clock went back"),
        )
        self.create_service(SetBool, "~/enable", self._on_enable)
        self.create_service(Trigger, "~/reset_temporal", self._on_reset_temporal)
        self.create_service(Trigger, "~/relearn_offsets", self._on_relearn_offsets)

    def start(self) -> bool:
        """Configure and activate; false when that failed, which was logged."""
        return self.trigger_configure() == _SUCCESS and self.trigger_activate() == _SUCCESS

    def close(self) -> None:
        """Stop working and release everything, in any state; the node can then be destroyed."""
        self._stop()
        self._release()
        self._jump.unregister()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and advertise."""
        try:
            configured = self._configured = self._configure()
        except Exception as error:  # what files, torch and ROS make of the values, too
            self.get_logger().error(f"cannot configure: {_words(error)}")
            return _FAILURE
        for sentence in self._store.unknown():
            self.get_logger().warning(sentence)
        self._store.locked = True
        parameters, detector = configured.parameters, configured.detector
        if parameters.device == "auto" and detector.device.type == "cpu":
            step_s = configured.step_s
            rate = f", {1 / step_s:.1f} sets a second without decoding" if step_s else ""
            self.get_logger().error(
                f"no CUDA device: detecting on the CPU{rate}; say device: cpu if that is wanted"
            )
        self.get_logger().info(
            f"model {parameters.model or 'demo'} (sha256 {detector.checkpoint_sha256[:12]}) on "
            f"{detector.device}, {detector.precision}"
        )
        return super().on_configure(state)

    def _configure(self) -> Configured:
        parameters = self._store.declare(Parameters())
        detector = self._load(parameters)
        cameras = {
            name: self._store.declare(CameraParameters(), f"cameras.{name}.")
            for name in detector.config.cameras
        }
        for name in detector.class_names:
            self._store.declare(ClassParameters(), f"classes.{name}.")
        sync_options(parameters.sync, cameras)
        check_topics(self, parameters, cameras)
        if parameters.sync.policy == "approximate_time":
            ApproximateSynchronizer.require()
        step_s = warm_up(detector, parameters.warmup_iterations)
        outputs = Outputs(self, detector.class_names, tuple(cameras))
        return Configured(parameters, cameras, detector, outputs, step_s)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and start the worker."""
        result = super().on_activate(state)
        assert self._configured is not None
        configured = self._configured
        self._revision = -1
        try:
            self._active = activate(self, configured, self._log, self._on_image, self._on_result)
        except Exception as error:  # a QoS override that ROS does not know
            self.get_logger().error(f"cannot activate: {_words(error)}")
            super().on_deactivate(state)
            return _FAILURE
        period_s = configured.parameters.diagnostics.period
        self._reporting = self.create_timer(period_s, self._report, clock=self._steady)
        threshold = configured.parameters.score_threshold
        configured.outputs.labels(threshold, self.get_clock().now().nanoseconds)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the worker and unsubscribe."""
        broken = self._active.pipeline.broken if self._active else ""
        self._stop()
        result = super().on_deactivate(state)
        return _ERROR if broken else result

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the model."""
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop for good."""
        self._stop()
        self._release()
        self.finished = True
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything; the node can be configured again."""
        self._stop()
        self._release()
        return _SUCCESS

    def _stop(self) -> None:
        if self._active is None:
            return
        active, self._active = self._active, None
        self._overdue.cancel()
        if self._reporting:
            self.destroy_timer(self._reporting)
        active.subscriptions.close()
        active.listener.close()
        if not active.worker.stop(_STOP_S):
            self.get_logger().error(f"the detector did not end within {_STOP_S:g} s")
        active.pipeline.close()

    def _release(self) -> None:
        if self._configured is not None:
            self._configured.outputs.close()
        self._configured = None
        self._store.locked = False
        torch.cuda.empty_cache()  # nothing where CUDA was not used

    def _on_image(self, camera: str, message: ImageMessage) -> None:
        active = self._active
        if active is None:
            return
        now_s, stamp_ns = time.monotonic(), stamp_to_ns(message.header.stamp)
        encoding = message.encoding if isinstance(message, Image) else message.format
        active.health.image(camera, now_s, encoding, message.header.frame_id)
        if stamp_ns == 0:
            text = f"{camera}: its images have no stamp; set it in the driver"
            self._log.warning(f"{camera}/stamp", text)
            active.health.problems([Problem(camera, "image", text)], now_s)
            return
        info = active.subscriptions.infos.get(camera)
        arrival = Arrival(message, (info.width, info.height) if info else None)
        if active.worker.idle and active.pipeline.wanted():
            active.assembler.decode_ahead(arrival)
        added = active.synchronizer.add(camera, stamp_ns, arrival, now_s)
        if added.reset:
            self._forget(active, "the stamps went back")
        self._submit(active, added.sets)
        self._watch(active)

    def _on_overdue(self) -> None:
        active = self._active
        if active is None:
            self._overdue.cancel()
            return
        self._submit(active, active.synchronizer.poll(time.monotonic()))
        self._watch(active)

    def _watch(self, active: Active) -> None:
        """Look again when an open set is overdue, unless an image comes before."""
        deadline_s = active.synchronizer.next_deadline_s()
        if deadline_s is None:
            self._overdue.cancel()
            return
        left_ns = round((deadline_s - time.monotonic()) * 1e9)
        self._overdue.timer_period_ns = max(_SOON_NS, left_ns)
        self._overdue.reset()

    def _submit(self, active: Active, sets: Sequence[CameraSet[Arrival]]) -> None:
        if sets and self._revision != self._store.revision:
            self._revision = self._store.revision
            active.pipeline.parameters = self._store.declare(Parameters())
            active.pipeline.class_thresholds = self._class_thresholds()
        for images in sets:
            job = Job(images, dict(active.subscriptions.infos), time.monotonic())
            if not images.usable:
                self._log.warning(
                    "incomplete", f"set dropped, no image of {', '.join(images.missing)}"
                )
                active.pipeline.end(job.report("incomplete", "missing camera"))
            elif not active.rate.passes(images.stamp_ns, active.pipeline.parameters.max_rate):
                active.pipeline.end(job.report("dropped", "max_rate"))
            else:
                self._hand_over(active, job)

    def _hand_over(self, active: Active, job: Job) -> None:
        """Give a set to the worker; its images are decoded meanwhile if it will be the next."""
        if replaced := active.worker.submit(job):
            replaced.cancel()
            active.pipeline.end(replaced.report("dropped", "a newer set came"))
        if active.worker.will_take and active.pipeline.wanted():
            active.assembler.decode_ahead(*job.arrivals)

    def _class_thresholds(self) -> list[float]:
        assert self._configured is not None
        return [
            self._store.declare(ClassParameters(), f"classes.{name}.").score_threshold
            for name in self._configured.detector.class_names
        ]

    def _time_went_back(self, reason: str) -> None:
        if self._active is not None:
            self._active.synchronizer.reset()
            self._forget(self._active, reason)

    def _forget(self, active: Active, reason: str) -> None:
        if waiting := active.worker.withdraw():
            waiting.cancel()
            active.pipeline.end(waiting.report("dropped", "time went back"))
        active.pipeline.reset_history(reason)
        self.get_logger().info(f"started afresh: {reason}")

    def _report(self) -> None:
        active = self._active
        if active is None:
            return
        now_s = time.monotonic()
        if now_s - active.started_s > _PATIENCE_S:
            self._complain(active, now_s)
        if not active.pipeline.wanted():
            active.health.unwanted(now_s)
        statuses = active.health.diagnostics(
            self.get_name(),
            {
                **active.synchronizer.counts,
                "relearned": active.synchronizer.relearned,
                "anchor": active.synchronizer.anchor,
            },
            active.synchronizer.offsets_s,
            now_s,
        )
        now = self.get_clock().now().nanoseconds
        self._diagnostics.publish(DiagnosticArray(header=header(now, ""), status=statuses))
        if active.pipeline.broken:
            self.get_logger().error(f"the detector is given up: {active.pipeline.broken}")
            self.trigger_deactivate()

    def _complain(self, active: Active, now_s: float) -> None:
        silent = active.health.silent_cameras(now_s)
        for camera in silent:
            self._log.warning(f"{camera}/silent", active.subscriptions.why_silent(camera))
        for camera in active.subscriptions.without_info():
            if camera not in silent:
                self._log.warning(f"{camera}/info", active.subscriptions.why_without_info(camera))

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if active := self._answer(response):
            active.pipeline.enabled = request.data
        return response

    def _on_reset_temporal(self, _: Trigger.Request, reply: Trigger.Response) -> Trigger.Response:
        if active := self._answer(reply):
            active.pipeline.reset_history("asked by ~/reset_temporal")
        return reply

    def _on_relearn_offsets(self, _: Trigger.Request, reply: Trigger.Response) -> Trigger.Response:
        if active := self._answer(reply):
            active.synchronizer.relearn_offsets()
        return reply

    def _answer(self, response: SetBool.Response | Trigger.Response) -> Active | None:
        response.success = self._active is not None
        response.message = "" if response.success else "the node is not active"
        return self._active


def _words(error: Exception) -> str:
    """An error in a line; those that are not of this project by their kind as well."""
    if isinstance(error, LabelDistillError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def main(args: list[str] | None = None) -> None:
    """Run the node until it is told to stop; exits with 2 when it cannot start."""
    keep_freed_memory(resolve_device("auto"))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    code = 0
    try:
        node = DetectorNode()
    except LabelDistillError as error:
        rclpy.logging.get_logger("detector").error(str(error))
        rclpy.try_shutdown()
        sys.exit(2)
    handler = RosHandler(node.get_logger())
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spinner = Spinner(executor)
    try:
        if node.autostart and not node.start():
            code = 2
        while code == 0 and not stop.is_set() and not node.finished:
            spinner.spin_once(timeout_s=0.1)
        code = code or 3 * spinner.failed
    finally:
        node.close()
        logging.getLogger().removeHandler(handler)
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
        gc.freeze()  # or Python spends two seconds looking through torch's modules at its end
    sys.exit(code)


if __name__ == "__main__":
    main()
