# SPDX-License-Identifier: Apache-2.0
"""A typed function as a command: its options, and exit codes for what it raises."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from labeldistill_core.errors import LabelDistillError

_ROS = "source a ROS 2 distribution, or run `make setup` in a checkout"
_PIP = "pip install '.[{}]' in a checkout"
_MISSING = {
    "embreex": _PIP.format("synthetic"),
    "lightning": _PIP.format("train"),
    "tensorboard": _PIP.format("train"),
    "nuscenes": _PIP.format("nuscenes"),
    "matplotlib": _PIP.format("nuscenes"),
    "rosbags": _PIP.format("bags"),
    "mcap": _PIP.format("bags"),
    "rclpy": _ROS,
    "vision_msgs": _ROS,
    "sensor_msgs": _ROS,
    "std_msgs": _ROS,
    "diagnostic_msgs": _ROS,
    "visualization_msgs": _ROS,
    "tf2_msgs": _ROS,
}
"""Module that only some commands need, and how to get it."""


def run_command(
    name: str,
    command: Callable[..., Any] | Mapping[str, Callable[..., Any]],
    args: Sequence[str] | None = None,
) -> int:
    """Call a function with the options that the arguments give.

    Args:
        name: how the command is called, for its help.
        command: a function whose docstring is its help, or several by name.
        args: of the command line; those of this process when None.

    Returns:
        The exit code: what the function returns if that is an int, else 0; 2 when it refuses its
        input or a library is missing, which is told in one line.

    Raises:
        SystemExit: the options are wrong, or help was asked for.
    """
    import tyro  # what only lists its commands does not wait for it

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        if isinstance(command, Mapping):
            commands = dict(command)
            result = tyro.extras.subcommand_cli_from_dict(commands, prog=name, args=args)
        else:
            result = tyro.cli(command, prog=name, args=args)
    except LabelDistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        return missing_module(name, error)
    except KeyboardInterrupt:
        return 130
    return result if isinstance(result, int) else 0


def missing_module(name: str, error: ModuleNotFoundError) -> int:
    """Say how to get a module that only some commands need; returns the exit code.

    Raises:
        ModuleNotFoundError: it is none of those.
    """
    hint = _MISSING.get((error.name or "").partition(".")[0])
    if hint is None:
        raise error
    print(f"error: {name} needs {error.name}, which is not installed: {hint}", file=sys.stderr)
    return 2
