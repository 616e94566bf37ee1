# SPDX-License-Identifier: Apache-2.0
"""A bag and the detector: `ros2 launch labeldistill_ros replay.launch.py bag:=PATH`.

Ends when the bag does, unless `keep_open` or `loop` say otherwise; with 1 when the player fails.
With `output:=FOLDER` a recorder and a scorer take part, and the exit code is the scorer's verdict:
1 when a threshold is missed or nothing could be scored; the detector then publishes weak boxes,
too, unless it is told otherwise. All arguments of detector.launch.py work here too.
"""

import signal
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    SetLaunchConfiguration,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events import matches_action
from launch.events.process import ProcessExited, SignalProcess
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackagePrefix

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

PACKAGE = "labeldistill_ros"
WEAK_BOXES = {"score_threshold": "0.1", "max_boxes": "500"}
"""Average precision needs the weak boxes as well; 500 are what nuScenes takes of a sample."""
LAST_BOXES_S = 2.0
"""After the end of the bag the detector may still be at work."""

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
        description="Seconds to wait at most until the detector is active.",
    ),
    DeclareLaunchArgument(
        "loop",
        default_value="false",
        choices=["true", "false"],
        description="Begin again at the end of the bag, until Ctrl-C.",
    ),
    DeclareLaunchArgument(
        "keep_open",
        default_value="false",
        choices=["true", "false"],
        description="Keep the detector and RViz when the bag has ended, until Ctrl-C.",
    ),
    DeclareLaunchArgument(
        "output",
        default_value="",
        description="Folder for the recording, metrics.json, junit.xml and report.html. Empty: "
        "nothing is recorded and scored.",
    ),
    DeclareLaunchArgument(
        "min_nds",
        default_value="",
        description="With output: the verdict is bad when the NDS (0 to 1) is lower. Empty: any "
        "will do.",
    ),
    DeclareLaunchArgument(
        "min_coverage",
        default_value="",
        description="With output: the verdict is bad when a smaller share (0 to 1) of the key "
        "frames has boxes. Empty: any will do.",
    ),
    DeclareLaunchArgument(
        "score_threshold",
        default_value="",
        description="Lowest score of a published box. Empty: 0.1 with output, whatever the "
        "parameter file says, and else as it says.",
    ),
    DeclareLaunchArgument(
        "max_boxes",
        default_value="",
        description="Boxes of a set at most. Empty: 500 with output, and else as the parameter "
        "file says.",
    ),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="true",
        choices=["true", "false"],
        description="Take the time from the bag.",
    ),
)


def weak_boxes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """For metrics, what the detector publishes unless the user said something else."""
    told = context.launch_configurations
    if not told["output"]:
        return []
    missing = {name: value for name, value in WEAK_BOXES.items() if not told[name]}
    return [SetLaunchConfiguration(name, value) for name, value in missing.items()]


def processes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The bag, once the detector is there; its end is the end of all, after recorder and scorer."""

    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    tool = [PathJoinSubstitution([FindPackagePrefix(PACKAGE), "lib", PACKAGE, "labeldistill"])]
    bag, rate = given("bag"), given("rate")
    endless = ["--loop"] * (given("loop") == "true")
    if endless and given("output"):
        raise RuntimeError("loop:=true has no end, so output:= would never be scored: leave one")
    thresholds = [name for name in ("min_nds", "min_coverage") if given(name)]
    if thresholds and not given("output"):
        raise RuntimeError(
            f"{thresholds[0]}:= needs output:=, a folder: without it nothing is recorded and scored"
        )
    if given("player") == "ros2":
        command = ["ros2", "bag", "play", bag, "--clock", "--rate", rate]
    else:
        command = [*tool, "bag", "replay", bag, "--rate", rate, "--wait-for", given("patience")]
        command += ["--detector", given("detector_name")]
    play = ExecuteProcess(cmd=[*command, *endless], output="both")
    begin = [play]
    if given("player") == "ros2":  # which cannot see whether the detector is active
        command = [*tool, "bag", "wait", given("detector_name"), "--seconds", given("patience")]
        wait = ExecuteProcess(cmd=command, output="both")
        begin = [_after(wait, [play]), wait]
    stays = given("keep_open") == "true"
    if not given("output"):
        end = [] if stays else [Shutdown(reason="the bag has ended")]
        return [_after(play, [TimerAction(period=LAST_BOXES_S, actions=end)]), *begin]

    output = Path(given("output"))
    run = str(output / "run")
    node = given("detector_name")
    command = [*tool, "bag", "record", run, "--detector", node, "--use-sim-time", "--force"]
    record = ExecuteProcess(cmd=command, output="both")
    command = [*tool, "bag", "score", bag, run, "--topic", f"{node}/detections"]
    command += ["--json", str(output / "metrics.json")]
    command += ["--junit", str(output / "junit.xml"), "--report", str(output / "report.html")]
    for name in thresholds:
        command += [f"--{name.replace('_', '-')}", given(name)]
    score = ExecuteProcess(cmd=command, output="both")
    stop = EmitEvent(
        event=SignalProcess(signal_number=signal.SIGINT, process_matcher=matches_action(record))
    )
    return [
        _after(play, [TimerAction(period=LAST_BOXES_S, actions=[stop])]),
        _after(record, [score]),
        _after(score, [] if stays else [Shutdown(reason="the verdict is good")]),
        record,
        *begin,
    ]


def _after(process: ExecuteProcess, then: list[LaunchDescriptionEntity]) -> RegisterEventHandler:
    """What comes next; an error, which makes the launch's exit code 1, when the process failed."""

    def go_on(event: ProcessExited, _: LaunchContext) -> list[LaunchDescriptionEntity]:
        if event.returncode:
            raise RuntimeError(f"`{event.process_name}` ended with {event.returncode}; see above")
        return then

    return RegisterEventHandler(OnProcessExit(target_action=process, on_exit=go_on))


def generate_launch_description() -> LaunchDescription:
    """The launch description."""
    share = Path(get_package_share_directory(PACKAGE))
    detector = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share / "launch" / "detector.launch.py"))
    )
    return LaunchDescription(
        [
            *ARGUMENTS,
            SetLaunchConfiguration("more_arguments", " ".join(a.name for a in ARGUMENTS)),
            OpaqueFunction(function=weak_boxes),
            detector,
            OpaqueFunction(function=processes),
        ]
    )
