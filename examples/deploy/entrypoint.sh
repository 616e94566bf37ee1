#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Launch the detector in the container; arguments are those of detector.launch.py.
set -e
source /opt/ros/jazzy/setup.bash
source /ws/.venv/bin/activate
source /ws/install/setup.bash
exec ros2 launch labeldistill_ros detector.launch.py "$@"
