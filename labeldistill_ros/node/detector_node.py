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
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

import rclpy
import rclpy.logging
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType, JumpThreshold  # type: ignore[attr-defined]
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import qos_profile_parameters
from rclpy.timer import Timer
from std_srvs.srv import SetBool, Trigger

from labeldistill_core.errors import LabelDistillError
from labeldistill_core.exit_codes import FAULT, REFUSED, exit_code
from labeldistill_core.runtime.allocator import keep_freed_memory
from labeldistill_core.runtime.device import resolve_device
from labeldistill_ros.inputs.clock import BACK_NS
from labeldistill_ros.messages import header
from labeldistill_ros.node.configuration import Configuration, configure
from labeldistill_ros.node.model import LoadDetector, load_detector
from labeldistill_ros.node.parameter_service import AnsweringParameterService
from labeldistill_ros.node.processing import OnResult
from labeldistill_ros.node.restart import RestartPause
from labeldistill_ros.node.ros_logging import ThrottledLog, log_through
from labeldistill_ros.node.session import Session
from labeldistill_ros.node.spinning import Spinner
from labeldistill_ros.node.stopping import StopSignals
from labeldistill_ros.parameter_store import ParameterStore
from labeldistill_ros.parameters import Parameters
from labeldistill_ros.starting import init_ros

_SUCCESS, _FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
_ERROR = TransitionCallbackReturn.ERROR

_Transition = Callable[["DetectorNode", LifecycleState], TransitionCallbackReturn]


def _told(transition: _Transition) -> _Transition:
    """Let an error of a transition be told, which the lifecycle would swallow."""

    @wraps(transition)
    def call(node: DetectorNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception as error:  # told, and by `on_error` back to unconfigured
            node.tell(f"{transition.__name__} failed", error)
            return _ERROR

    return call


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
        super().__init__(name, start_parameter_services=False, **kwargs)
        self._load, self._on_result = load, on_result
        self._log = ThrottledLog(self.get_logger())
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._configured: Configuration | None = None
        self.session: Session | None = None
        """What the node does while it is active."""
        self._reporting: Timer | None = None
        self._restart = RestartPause()
        self._retry: Timer | None = None
        self.loading = False
        """Whether it is being configured, which takes long."""
        self.finished = False
        """Whether the node was shut down by a transition."""
        self.failed = False
        """Whether the node had an error of its own, which nobody foresaw."""
        self._store = ParameterStore(self)
        self._parameter_service = AnsweringParameterService(self, self._store.why_refused)
        self.autostart = self._store.declare(Parameters()).autostart
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._jump = self.get_clock().create_jump_callback(
            JumpThreshold(
                # Backwards only: a clock that leaps ahead is a gap, which the history notices by
                # itself.
                min_forward=None,
                min_backward=Duration(nanoseconds=-BACK_NS),
                on_clock_change=False,
            ),
            post_callback=lambda _: self._on_clock_jump(),
        )
        for kind, name, answer in (
            (SetBool, "~/enable", self._on_enable),
            (Trigger, "~/reset_temporal", self._on_reset_temporal),
            (Trigger, "~/relearn_offsets", self._on_relearn_offsets),
        ):
            # What comes while a model loads waits in the queue, and more than it holds is lost.
            self.create_service(kind, name, answer, qos_profile=qos_profile_parameters)

    def start(self) -> bool:
        """Configure and activate; false when that failed, which was logged.

        The node is unconfigured then, so that it can be started again.
        """
        if self.trigger_configure() != _SUCCESS:
            return False
        if self.trigger_activate() == _SUCCESS:
            return True
        # An error in activating has brought it there already.
        if self._configured is not None:
            self.trigger_cleanup()
        return False

    def close(self) -> None:
        """Stop working and release everything, in any state; the node can then be destroyed."""
        self._forget_retry()
        self._stop()
        self._release()
        self._jump.unregister()

    @_told
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and advertise."""
        self.loading = True
        try:
            configured = self._configured = configure(self, self._store, self._load)
        except Exception as error:  # the lifecycle would swallow it
            self.tell("cannot configure", error)
            return _FAILURE
        finally:
            self.loading = False
        self._forget_retry()  # not before: a manager that fails to configure it ends no retry
        for sentence in self._store.unknown():
            self.get_logger().warning(sentence)
        self._store.locked = True
        parameters, detector = configured.parameters, configured.detector
        if parameters.device == "auto" and detector.device.type == "cpu":
            step_s = configured.step_s
            rate = f", {1 / step_s:.1f} sets a second without decoding" if step_s else ""
            self.get_logger().info(  # auto asks for no GPU; /diagnostics tells the device for good
                f"no CUDA device: detecting on the CPU{rate}; device: cuda:0 insists on a GPU"
            )
        if not parameters.model:
            self.get_logger().warning(
                "no model is named, so this is the demo model: it knows a synthetic world and must "
                "not be used on a road; set model"
            )
        if absent := [c for c in detector.config.cameras if c not in configured.topics]:
            self.get_logger().info(f"detecting without {', '.join(absent)}: enabled is false there")
        self.get_logger().info(
            f"model {parameters.model or 'demo'} (sha256 {detector.checkpoint_sha256[:12]}) on "
            f"{detector.device}, {detector.precision}"
        )
        return super().on_configure(state)

    @_told
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and start the worker."""
        result = super().on_activate(state)
        assert self._configured is not None
        configured = self._configured
        try:
            self.session = Session(self, configured, self._store, self._log, self._on_result)
        except Exception as error:  # the lifecycle would swallow it
            self.tell("cannot activate", error)
            super().on_deactivate(state)
            return _FAILURE
        for sentence in self._store.unknown_overrides():
            self.get_logger().warning(sentence)
        period_s = configured.parameters.diagnostics.period
        self._reporting = self.create_timer(period_s, self._report, clock=self._steady)
        self.session.tell_labels()
        self.get_logger().info("active, waiting for images")
        return result

    @_told
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the worker and unsubscribe."""
        given_up = self.session.given_up if self.session else ""
        self._stop()
        result = super().on_deactivate(state)
        return _ERROR if given_up else result

    @_told
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the model, its memory and the publishers."""
        self._release()
        _collect()
        return super().on_cleanup(state)

    @_told
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop for good; the process then ends."""
        self._forget_retry()
        self._stop()
        self._release()
        self.finished = True
        return super().on_shutdown(state)

    @_told
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything; the node can be configured again."""
        self._stop()
        self._release()
        _collect()
        return _SUCCESS

    def _stop(self) -> None:
        if self.session is None:
            return
        # Taken away before it is closed, so that services and timers meanwhile find no session.
        session, self.session = self.session, None
        if self._reporting:
            self.destroy_timer(self._reporting)
        session.close()
        self.failed |= session.failed

    def tell(self, what: str, error: Exception) -> None:
        """Log why a transition fails, in a line, or with a traceback when nobody foresaw it."""
        # what torch, files, values and ROS's names and policies lead to
        foreseen = isinstance(error, (RuntimeError, OSError, MemoryError, ValueError))
        foreseen |= isinstance(error, LabelDistillError) or _of_ros(error)
        self.failed |= not foreseen
        trace = "" if foreseen else "\n" + "".join(traceback.format_exception(error))
        self.get_logger().error(f"{what}: {_words(error)}{trace}")

    def _release(self) -> None:
        if self._configured is not None:
            self._configured.outputs.close()
        self._configured = None
        self._store.locked = False
        torch.cuda.empty_cache()  # nothing where CUDA was not used

    def _report(self) -> None:
        session = self.session
        if session is None:
            return
        now_ns, statuses = self.get_clock().now().nanoseconds, session.report()
        self._diagnostics.publish(DiagnosticArray(header=header(now_ns, ""), status=statuses))
        if session.given_up:
            self._log_given_up(session.given_up)
            # From the spinning thread: the worker that gave up cannot end itself. `on_deactivate`
            # answers with an error, and the lifecycle goes to unconfigured by `on_error`.
            self.trigger_deactivate()

    def _log_given_up(self, why: str) -> None:
        """Say so, and try again later unless a lifecycle manager decides that."""
        text = f"the detector is given up: {why}"
        if self.autostart:
            pause_s = self._restart.next_s(time.monotonic())
            self._retry = self.create_timer(pause_s, self._try_again, clock=self._steady)
            text += f"; it is tried again in {pause_s:g} s"
        self.get_logger().error(text)

    def _try_again(self) -> None:
        self._forget_retry()
        if not self.start():
            self._log_given_up("it cannot be started again")

    def _forget_retry(self) -> None:
        if self._retry:
            self.destroy_timer(self._retry)
        self._retry = None

    def _on_clock_jump(self) -> None:
        if self.session:
            self.session.clock_went_back()

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if session := self._answer(response):
            session.enable(request.data)
            response.message = "detecting" if request.data else "sets pass without detection"
        return response

    def _on_reset_temporal(self, _: Trigger.Request, reply: Trigger.Response) -> Trigger.Response:
        if session := self._answer(reply):
            session.reset_history("asked by ~/reset_temporal")
            reply.message = "past frames are forgotten before the next set"
        return reply

    def _on_relearn_offsets(self, _: Trigger.Request, reply: Trigger.Response) -> Trigger.Response:
        if session := self._answer(reply):
            session.intake.synchronizer.relearn_offsets()
            reply.message = "the cameras' phases are learned anew from the next images"
        return reply

    def _answer(self, response: SetBool.Response | Trigger.Response) -> Session | None:
        response.success = self.session is not None
        response.message = "" if response.success else "the node is not active: activate it first"
        return self.session


def _of_ros(error: Exception) -> bool:
    return type(error).__module__.startswith("rclpy")


def _collect() -> None:
    """Let go of the detector now: its weights and threads, before another one is loaded.

    Callbacks of timers and subscriptions refer to the session that they belong to, and so to the
    detector, until Python looks for such circles, which a node that allocates little seldom does.
    """
    gc.collect()


def _words(error: Exception) -> str:
    """An error in a line; those that are not of this project by their kind as well."""
    if isinstance(error, LabelDistillError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to stop; returns the exit code, see `exit_codes`."""
    return exit_code(lambda: _run(args), "detector_node")


def _run(args: list[str] | None) -> int:
    signals = StopSignals()
    try:
        return _spin(args, signals)
    except KeyboardInterrupt:
        with suppress(OSError):  # nobody may read it
            name = signal.Signals(signals.number).name
            print(f"ended by {name} while it started", file=sys.stderr)
        return 128 + signals.number


def _spin(args: list[str] | None, signals: StopSignals) -> int:
    keep_freed_memory(resolve_device("auto"))
    init_ros(args)
    code = 0
    try:
        node = DetectorNode()
    except Exception as error:
        # ROS itself refuses a name, or a value of a parameter that every node has.
        if not (isinstance(error, LabelDistillError) or _of_ros(error)):
            raise
        rclpy.logging.get_logger("detector").error(_words(error))
        rclpy.try_shutdown()
        return REFUSED
    handler = log_through(node.get_logger())
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spinner = Spinner(executor)
    signals.loading = lambda: node.loading
    try:
        if node.autostart and not node.start():
            code = REFUSED
        signals.running = True
        while code == 0 and not signals.number and not node.finished:
            spinner.spin_once(timeout_s=0.1)
    finally:
        node.close()
        logging.getLogger().removeHandler(handler)
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
        gc.freeze()  # or Python spends two seconds looking through torch's modules at its end
    return FAULT if spinner.failed or node.failed else code
