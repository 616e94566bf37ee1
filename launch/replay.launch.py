# SPDX-License-Identifier: Apache-2.0
"""A bag and the detector: `ros2 launch labeldistill_ros replay.launch.py bag:=PATH`.

Ends when the bag does. All arguments of detector.launch.py work here too.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackagePrefix

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

PACKAGE = "labeldistill_ros"

ARGUMENTS = (
    DeclareLaunchArgument("bag", description="Folder of the bag (rosbag2)."),
    DeclareLaunchArgument(
        "rate", default_value="1.0", description="Speed, as a factor of real time."
    ),
    DeclareLaunchArgument(
        "player",
        default_value="labeldistill",
        choices=["labeldistill", "ros2"],
        description="`labeldistill bag replay` or `ros2 bag play`; both publish /clock.",
    ),
    DeclareLaunchArgument(
        "patience",
        default_value="60.0",
        description="Seconds to wait for the detector at most; the player ros2 cannot see it and "
        "starts after 10.",
    ),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="true",
        choices=["true", "false"],
        description="Take the time from the bag.",
    ),
)


def player(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The bag, once the detector is there; its end is the end of all."""
    bag, rate, patience = (LaunchConfiguration(name) for name in ("bag", "rate", "patience"))
    if LaunchConfiguration("player").perform(context) == "ros2":
        command = ["ros2", "bag", "play", bag, "--clock", "--rate", rate, "--delay", "10"]
    else:
        tool = PathJoinSubstitution([FindPackagePrefix(PACKAGE), "lib", PACKAGE, "labeldistill"])
        command = [tool, "bag", "replay", bag, "--rate", rate, "--wait-for", patience]
    play = ExecuteProcess(cmd=command, output="both")
    last_boxes = TimerAction(period=2.0, actions=[Shutdown(reason="the bag has ended")])
    return [
        RegisterEventHandler(OnProcessExit(target_action=play, on_exit=[last_boxes])),
        play,
    ]


def generate_launch_description() -> LaunchDescription:
    """The launch description."""
    share = Path(get_package_share_directory(PACKAGE))
    detector = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share / "launch" / "detector.launch.py"))
    )
    return LaunchDescription([*ARGUMENTS, detector, OpaqueFunction(function=player)])
