# SPDX-License-Identifier: Apache-2.0
"""The node ends within a second, whatever a decoder does."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labeldistill_ros.sets import arrival
from labeldistill_ros.shared_memory import kill_node
from labeldistill_ros.testing.simulated_drive import RunningNode
from labeldistill_ros.testing.vehicle import Vehicle
from tests.support.rig import PATIENT

pytestmark = pytest.mark.real_time

HANGING = """
import os, time
from labeldistill_ros.sets import arrival
def hang(*_):
    os.write(2, b"hangs\\n")  # at once, since several threads do
    time.sleep(60)
arrival.to_rgb = hang
from labeldistill_ros.entry import node
node()
"""


def test_deactivation_does_not_wait(
    vehicle: Vehicle, detector: Callable[..., RunningNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = detector(**PATIENT)
    vehicle.connect()
    vehicle.drive(range(4))
    vehicle.expect(lambda: "processed" in vehicle.outcomes(), "a first set")
    hangs, go_on = threading.Event(), threading.Event()

    def hang(*_: Any) -> None:
        hangs.set()
        go_on.wait(60)

    monkeypatch.setattr(arrival, "to_rgb", hang)
    vehicle.cycle(4)
    assert hangs.wait(10)
    time.sleep(0.5)  # the worker waits for the decoder by now
    asked_s = time.monotonic()
    node.node.trigger_deactivate()
    took_s = time.monotonic() - asked_s
    go_on.set()
    assert took_s < 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process(
    vehicle: Vehicle, tiny_model: Path, number: signal.Signals
) -> None:
    values = [f"model:={tiny_model}", "device:=cpu", "detect_without_listeners:=true"]
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING, "--ros-args", *(x for v in values for x in ("-p", v))],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_listens_to_sigint,
    )
    try:
        assert process.stderr is not None
        vehicle.expect(lambda: vehicle.node.count_publishers("/detector/status"), "it starts", 60)
        vehicle.connect()
        vehicle.cycle(0)
        for line in process.stderr:
            if line == "hangs\n":
                break
        time.sleep(0.5)
        asked_s = time.monotonic()
        process.send_signal(number)
        told = process.communicate(timeout=20)[1]
        took_s = time.monotonic() - asked_s
    finally:
        kill_node(process)
    assert process.returncode == 0, told
    assert "Traceback" not in told
    assert took_s < 4  # 0.7 s; the limit is for a busy machine


def _listens_to_sigint() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
