# SPDX-License-Identifier: Apache-2.0
"""The names of `labeldistill_ros.messages` under their earlier address."""

from labeldistill_ros.messages import *  # noqa: F403
