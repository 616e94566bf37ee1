# SPDX-License-Identifier: Apache-2.0
"""ROS 2 in this process: begun without its signal handlers, and refused in a line."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import rclpy
from rclpy.signals import SignalHandlerOptions

from labeldistill_core.errors import ConfigError

_LAST_DOMAIN = 232
"""Of which all of DDS's ports are below 65536."""
_PLACE = re.compile(r", at \S+:\d+")
"""Where in ROS's own sources an error arose."""


def init_ros(args: Sequence[str] | None = None) -> None:
    """Begin with ROS; whoever calls handles SIGINT and SIGTERM.

    rclpy's own handlers would take the context away under publishers and worker threads.

    Args:
        args: of the command line; those of this process when None.

    Raises:
        ConfigError: ROS refuses an argument, a parameter file or the environment.
    """
    domain = os.environ.get("ROS_DOMAIN_ID", "")
    # Fast DDS ends the process by itself where the ports that follow from it are none.
    if re.fullmatch(r"[+-]?\d+", domain.strip()) and not 0 <= int(domain) <= _LAST_DOMAIN:
        raise ConfigError(f"ROS_DOMAIN_ID is {domain[:20]}: set it to 0 to {_LAST_DOMAIN}")
    try:
        rclpy.init(
            args=None if args is None else list(args),
            signal_handler_options=SignalHandlerOptions.NO,
        )
    except RuntimeError as error:  # rclpy has no class of its own for them
        # Several lines with places in ROS's sources, of which a user needs one sentence.
        what = " ".join(_PLACE.sub("", str(error)).split())
        mend = "check what follows --ros-args, and ROS_DOMAIN_ID"
        if "logging" in what:
            mend = "set ROS_LOG_DIR to a folder that can be written"
        if "Error parsing" in what:
            mend = "write it as YAML, indented by spaces and not by tabs"
        raise ConfigError(f"ROS cannot start: {what}: {mend}") from error
