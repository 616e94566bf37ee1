# SPDX-License-Identifier: Apache-2.0
"""The detector, and RViz if wanted: `ros2 launch labeldistill_ros detector.launch.py -s`."""

import difflib
import json
import os
from pathlib import Path
from typing import Any

import launch.logging
from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from launch.actions import (
    DeclareLaunchArgument,
    OpaqueFunction,
    SetEnvironmentVariable,
    SetLaunchConfiguration,
)
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

PACKAGE = "labeldistill_ros"
CONFIG = Path(get_package_share_directory(PACKAGE)) / "config"

ARGUMENTS = (
    DeclareLaunchArgument(
        "params_file",
        default_value=str(CONFIG / "detector.yaml"),
        description="Parameters of the node; copy the default file and change the copy.",
    ),
    DeclareLaunchArgument(
        "model",
        default_value="",
        description="Student checkpoint. Empty: that of the parameter file.",
    ),
    DeclareLaunchArgument(
        "device",
        default_value="",
        description="cpu, cuda:0, auto. Empty: that of the parameter file.",
    ),
    DeclareLaunchArgument(
        "precision",
        default_value="",
        description="float32, float16, bfloat16, auto. Empty: that of the parameter file.",
    ),
    DeclareLaunchArgument(
        "score_threshold",
        default_value="",
        description="Lowest score of a published box. Empty: that of the parameter file.",
    ),
    DeclareLaunchArgument(
        "max_boxes",
        default_value="",
        description="Boxes of a set at most. Empty: as the parameter file says.",
    ),
    DeclareLaunchArgument(
        "transport",
        default_value="",
        choices=["", "compressed", "raw"],
        description="Form of the images. Empty: that of the parameter file.",
    ),
    DeclareLaunchArgument(
        "camera_prefix",
        default_value="",
        description="Before all camera topics, e.g. /sensing. Empty: that of the parameter file.",
    ),
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node."),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="",
        choices=["", "true", "false"],
        description="Take the time from /clock, as in a replay. Empty: as the parameter file says, "
        "and false for RViz.",
    ),
    DeclareLaunchArgument(
        "autostart",
        default_value="",
        choices=["", "true", "false"],
        description="Configure and activate; false where a lifecycle manager does. Empty: as the "
        "parameter file says.",
    ),
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        choices=["debug", "info", "warn", "error", "fatal"],
        description="Least severe messages of the node that are shown.",
    ),
    DeclareLaunchArgument(
        "rviz",
        default_value="false",
        choices=["true", "false"],
        description="Start RViz with cameras, boxes and transforms.",
    ),
)


def check(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Refuse what cannot work before a process runs; tell of arguments that nobody knows."""
    parameters = Path(LaunchConfiguration("params_file").perform(context))
    if not parameters.is_file():
        raise FileNotFoundError(
            f"params_file:={parameters}: there is no such file; without it the node would run with "
            "its defaults, and that is the demo model"
        )
    if LaunchConfiguration("rviz").perform(context) == "true":
        try:
            get_package_prefix("rviz2")
        except PackageNotFoundError as error:
            raise RuntimeError(
                "rviz:=true: rviz2 is not installed; install it with rosdep, or leave rviz away"
            ) from error
    known = [argument.name for argument in ARGUMENTS]
    # A file that includes this one has arguments of its own, so only those that look misspelled.
    known += context.launch_configurations.get("more_arguments", "").split()
    for word in context.argv:
        given, assigned, _ = word.partition(":=")
        near = difflib.get_close_matches(given, known, n=1)
        if assigned and near and given not in known:
            launch.logging.get_logger("detector.launch").warning(
                f"there is no argument {given}, it is ignored: did you mean {near[0]}?"
            )
    return []


def fast_dds(_: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The Fast DDS profile for all processes, unless the user chose one; images need its memory."""
    # Fast DDS 2 of Humble and Jazzy reads the one variable; Fast DDS 3 warns of it.
    version = "FASTRTPS" if os.environ.get("ROS_DISTRO") in ("humble", "jazzy") else "FASTDDS"
    variable = f"{version}_DEFAULT_PROFILES_FILE"
    if variable in os.environ:
        return []
    return [SetEnvironmentVariable(variable, str(CONFIG / "fastdds.xml"))]


def name(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The node's name with its namespace, for whoever includes this file, too."""
    pushed = context.launch_configurations.get("ros_namespace")  # by PushRosNamespace
    namespace = LaunchConfiguration("namespace").perform(context) or None
    whole = make_namespace_absolute(prefix_namespace(pushed, namespace)) or ""
    return [SetLaunchConfiguration("detector_name", f"{whole.rstrip('/')}/detector")]


def detector(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The node; arguments that were given go before the parameter file."""

    def given(argument: str) -> str:
        return LaunchConfiguration(argument).perform(context)

    parameters: dict[str, Any] = {
        argument: given(argument)
        for argument in ("model", "device", "precision", "transport", "camera_prefix")
        if given(argument)
    }
    parameters |= {
        argument: given(argument) == "true"
        for argument in ("use_sim_time", "autostart")
        if given(argument)
    }
    parameters |= {
        argument: _number(argument, given(argument), kind)
        for argument, kind in (("score_threshold", float), ("max_boxes", int))
        if given(argument)
    }
    logger = given("detector_name").strip("/").replace("/", ".")
    return [
        Node(
            package=PACKAGE,
            executable="detector_node",
            name="detector",
            namespace=given("namespace"),
            parameters=[given("params_file"), parameters],
            arguments=["--ros-args", "--log-level", f"{logger}:={given('log_level')}"],
            output="both",
            emulate_tty=True,
            on_exit=failed,
        )
    ]


def failed(event: ProcessExited, context: LaunchContext) -> None:
    """Nothing is left to do without the detector; the error makes the launch's exit code 1."""
    if event.returncode and not context.is_shutdown:
        raise RuntimeError(f"the detector ended with {event.returncode}; see above")


def _number(argument: str, text: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise ValueError(f"{argument}:={text}: give {wanted}") from None


def rviz(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """RViz, with the clock and the frames that the node was told, and its boxes and overlays."""

    def given(argument: str) -> str:
        return LaunchConfiguration(argument).perform(context)

    if given("rviz") != "true":
        return []
    # What RViz shows is under the node's name, and its "save" must not write over the shared file.
    layout = Path(launch.logging.launch_config.log_dir) / "detector.rviz"
    shown = (CONFIG / "detector.rviz").read_text()
    shown = shown.replace("/detector/", f"{given('detector_name')}/")
    fixed, base = _frames(Path(given("params_file")), given("detector_name"))
    shown = shown.replace("Fixed Frame: map", f"Fixed Frame: {json.dumps(fixed)}")
    shown = shown.replace("Frame: base_link", f"Frame: {json.dumps(base)}")
    layout.write_text(shown)
    return [
        Node(
            package="rviz2",
            executable="rviz2",
            arguments=["-d", str(layout)],
            parameters=[{"use_sim_time": given("use_sim_time") == "true"}],
        )
    ]


def _frames(parameters: Path, node: str) -> tuple[str, str]:
    """What the parameter file calls the fixed frame and that of the vehicle."""
    try:
        # Here, since `ros2 launch` may run by another Python than the node, without our packages.
        from labeldistill_core.errors import ConfigError
        from labeldistill_ros.parameter_file import GivenParameters

        common = GivenParameters.of_file(parameters, node).common()
    except ImportError:
        return "map", "base_link"
    except ConfigError:  # which the node tells
        return "map", "base_link"
    if common.ego_motion_source == "none":
        return common.base_frame, common.base_frame
    return common.fixed_frame, common.base_frame


def generate_launch_description() -> LaunchDescription:
    """The launch description."""
    functions = (check, fast_dds, name, detector, rviz)
    return LaunchDescription([*ARGUMENTS, *(OpaqueFunction(function=f) for f in functions)])
