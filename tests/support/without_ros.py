# SPDX-License-Identifier: Apache-2.0
"""Commands in a process in which neither rclpy nor message packages can be imported."""

from __future__ import annotations

import json
import subprocess
import sys

_CODE = """
import json, sys
class Nobody:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"rclpy", "std_msgs", "sensor_msgs"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Nobody())
from labeldistill_ros.cli import main
for command in json.loads(sys.argv[1]):
    if code := main(command):
        sys.exit(code)
"""


def run_without_ros(*commands: list[str]) -> str:
    """What the commands print, one after the other; each has to end well."""
    code = [sys.executable, "-c", _CODE, json.dumps(commands)]
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
