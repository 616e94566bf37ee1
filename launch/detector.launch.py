# SPDX-License-Identifier: Apache-2.0
"""The detector, and RViz if wanted: `ros2 launch labeldistill_ros detector.launch.py -s`."""

from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetLaunchConfiguration
from launch.conditions import IfCondition
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
        )
    ]


def _number(argument: str, text: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise ValueError(f"{argument}:={text}: give {wanted}") from None


def rviz(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """RViz, with the clock that the node was told to take, and the node's boxes."""
    from_clock = LaunchConfiguration("use_sim_time").perform(context) == "true"
    markers = [LaunchConfiguration("detector_name"), "/markers"]
    return [
        Node(
            package="rviz2",
            executable="rviz2",
            arguments=["-d", str(CONFIG / "detector.rviz")],
            parameters=[{"use_sim_time": from_clock}],
            remappings=[("/detector/markers", markers)],
            condition=IfCondition(LaunchConfiguration("rviz")),
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """The launch description."""
    functions = (name, detector, rviz)
    return LaunchDescription([*ARGUMENTS, *(OpaqueFunction(function=f) for f in functions)])
