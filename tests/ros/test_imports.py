# SPDX-License-Identifier: Apache-2.0
"""What works without ROS is imported where ROS cannot be."""

import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT_ROS = """
import importlib, pkgutil, sys

BANNED = {"rclpy", "message_filters", "tf2_ros", "builtin_interfaces", "rcl_interfaces"}

class Nobody:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in BANNED or top.endswith("_msgs") or top == "rosbags" and "BAGS" not in sys.argv:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Nobody())
package = importlib.import_module(sys.argv[1])
names = [m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    importlib.import_module(name)
assert names, "nothing to import"
"""


def imported(package: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_ROS, package, *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("room", ["sync", "sets"])
def test_rooms_import_without_ros(room: str) -> None:
    done = imported(f"labeldistill_ros.{room}")
    assert done.returncode == 0, done.stderr


def test_messages_import_without_ros() -> None:
    done = imported("labeldistill_ros.messages", "BAGS")  # one of its two families is rosbags'
    assert done.returncode == 0, done.stderr


def test_the_ban_works(repository: Path) -> None:
    done = imported("labeldistill_ros.node")
    assert "ModuleNotFoundError: rclpy" in done.stderr or "_msgs" in done.stderr
