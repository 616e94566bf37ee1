# SPDX-License-Identifier: Apache-2.0
"""The node as a process: it starts by itself, ends on signals, and says why it cannot start."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from lifecycle_msgs.srv import ChangeState

from labeldistill_ros.testing.vehicle import Vehicle

pytestmark = pytest.mark.real_time

CLEAR_SCREEN = "\x1b[2J"
NODE = [sys.executable, "-m", "labeldistill_ros.node", "--ros-args"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*NODE, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_detects_and_ends_on_a_signal(
    vehicle: Vehicle, tiny_model: Path, repository: Path, number: signal.Signals
) -> None:
    file = repository / "config" / "detector.yaml"
    values = [f"model:={tiny_model}", "device:=cpu", "score_threshold:=0.0"]
    command = [*NODE, "--params-file", str(file), *(x for v in values for x in ("-p", v))]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=_listens_to_sigint
    )
    vehicle.expect(lambda: vehicle.node.count_publishers("/detector/detections"), "it starts", 60)
    vehicle.connect()
    vehicle.drive(range(6))
    vehicle.expect(lambda: vehicle.boxes, "boxes")
    ask_for_no_transition(vehicle)
    vehicle.cycle(6)  # a set is in work
    asked = time.monotonic()
    process.send_signal(number)
    told = process.communicate(timeout=20)[1]
    assert process.returncode == 0, told
    assert "Traceback" not in told
    assert CLEAR_SCREEN not in told
    assert time.monotonic() - asked < 4  # 0.6 s; the limit is for a busy machine


def ask_for_no_transition(vehicle: Vehicle) -> None:
    """By a name that rcl would log as it is."""
    client: Any = vehicle.node.create_client(ChangeState, "/detector/change_state")
    assert client.wait_for_service(10)
    request = ChangeState.Request()
    request.transition.label = CLEAR_SCREEN + "x" * 5000
    answer = client.call_async(request)
    vehicle.expect(answer.done, "the answer")
    assert not answer.result().success


def _listens_to_sigint() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_missing_model_is_named(tmp_path: Path) -> None:
    done = run("-p", f"model:={tmp_path / 'none.safetensors'}")
    assert done.returncode == 2
    assert f"cannot configure: no checkpoint at {tmp_path / 'none.safetensors'}" in done.stderr


def test_impossible_parameter_is_named() -> None:
    done = run("-p", "sync.tolerance:=7.0")
    assert done.returncode == 2
    assert "parameter sync.tolerance: use a value from 0.001 to 1" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_tab_in_a_parameter_file_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("/**:\n  ros__parameters:\n\tmodel: x\n")
    done = run("--ros-args", "--params-file", str(file))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "indented by spaces and not by tabs" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (("--params-file", "/nonexistent.yaml"), {}, "opening YAML file: check what follows"),
        (("-p", "foo"), {}, "'-p foo'"),
        ((), {"ROS_LOG_DIR": "/proc/x"}, "set ROS_LOG_DIR to a folder that can be written"),
        ((), {"ROS_DOMAIN_ID": "x"}, "ROS_DOMAIN_ID is not an integral number"),
    ],
)
def test_a_start_that_ros_refuses_is_one_line_and_code_2(
    arguments: tuple[str, ...],
    environment: dict[str, str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = run("--ros-args", *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert told in line
