# SPDX-License-Identifier: Apache-2.0
"""Pause and step of a replay: by services of its node, and by keys in a terminal."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

_POLL_S = 0.1
_MOST_KEYS = 64


class Controls:
    """What a replay is told while it runs; safe from several threads."""

    def __init__(self, paused: bool = False) -> None:
        """Begin with time running, or standing still."""
        self._lock = threading.Lock()
        self._paused = paused
        self._steps = 0
        self.stopped = threading.Event()
        """Set when the replay shall end."""

    @property
    def paused(self) -> bool:
        """Whether the time of the replay stands still."""
        with self._lock:
            return self._paused

    def pause(self, paused: bool | None = None) -> bool:
        """Pause or go on; without an argument the other of the two. Returns what is."""
        with self._lock:
            self._paused = not self._paused if paused is None else paused
            return self._paused

    def step(self) -> bool:
        """Go on for one step; false when the replay is not paused."""
        with self._lock:
            # Steps are counted, so that two key presses between two looks are two steps.
            self._steps += self._paused
            return self._paused

    def take_step(self) -> bool:
        """Whether a step is waiting; it counts as taken then."""
        with self._lock:
            waiting = self._steps > 0
            self._steps -= waiting
            return waiting


@contextmanager
def services(node: Node, controls: Controls) -> Iterator[None]:
    """Offer `~/pause` (`SetBool`) and `~/step` (`Trigger`), and spin the node meanwhile."""

    def pause(request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        controls.pause(request.data)
        response.success = True
        response.message = "paused" if request.data else "running"
        return response

    def step(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = controls.step()
        response.message = "" if response.success else "the replay is not paused"
        return response

    offered = [node.create_service(SetBool, "~/pause", pause)]
    offered.append(node.create_service(Trigger, "~/step", step))
    # The replay itself sleeps and publishes in the caller's thread and never spins, so the services
    # need an executor of their own.
    executor, done = SingleThreadedExecutor(context=node.context), threading.Event()
    executor.add_node(node)

    def spin() -> None:
        while not done.is_set():
            executor.spin_once(timeout_sec=_POLL_S)

    thread = threading.Thread(target=spin, name="replay controls", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        executor.remove_node(node)
        executor.shutdown()
        for service in offered:
            node.destroy_service(service)


@contextmanager
def keys(controls: Controls) -> Iterator[bool]:
    """Space pauses, `s` steps, `q` ends; yields false where there is no terminal."""
    if not sys.stdin.isatty():
        yield False
        return
    before, done = termios.tcgetattr(sys.stdin), threading.Event()

    def listen() -> None:
        while not done.is_set():
            # A blocking read would hold the thread until the next key, long after the replay's end.
            if not select.select([sys.stdin], [], [], _POLL_S)[0]:
                continue
            # From the descriptor that is polled: a stream would take in all that came at once, and
            # keep it until the next key.
            for key in os.read(sys.stdin.fileno(), _MOST_KEYS):
                if key == ord(" "):
                    controls.pause()
                elif key == ord("s"):
                    controls.step()
                elif key == ord("q"):
                    controls.stopped.set()

    # Keys without Enter; unlike raw mode this leaves Ctrl-C a signal. The terminal gets its
    # settings back whatever happens.
    tty.setcbreak(sys.stdin)
    thread = threading.Thread(target=listen, name="replay keys", daemon=True)
    thread.start()
    try:
        yield True
    finally:
        done.set()
        thread.join()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
