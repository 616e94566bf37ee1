# SPDX-License-Identifier: Apache-2.0
"""The launch files, where the launch packages of a ROS distribution are."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

REASON = "launch and launch_ros come with a ROS distribution"
launch = pytest.importorskip("launch", reason=REASON)
pytest.importorskip("launch_ros", reason=REASON)


@pytest.fixture(autouse=True)
def share(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkout as the package's share folder."""
    from ament_index_python import packages

    monkeypatch.setattr(packages, "get_package_share_directory", lambda _: str(repository))
    return repository


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.name.replace(".", "_"), path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments(description: Any) -> dict[str, Any]:
    found = description.get_launch_arguments()
    return {argument.name: argument for argument in found}


@pytest.mark.parametrize("name", ["detector", "replay"])
def test_arguments_are_declared_and_described(share: Path, name: str) -> None:
    found = arguments(load(share / "launch" / f"{name}.launch.py").generate_launch_description())
    wanted = {
        "params_file",
        "model",
        "device",
        "precision",
        "score_threshold",
        "max_boxes",
        "transport",
        "log_level",
        "autostart",
        "camera_prefix",
        "namespace",
        "use_sim_time",
        "rviz",
    }
    assert wanted | ({"bag", "rate"} if name == "replay" else set()) <= set(found)
    assert all(len(argument.description) > 15 for argument in found.values())


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """launch opens its log once in a process, so that the folder has to outlive a test."""
    return tmp_path_factory.mktemp("launch")


@pytest.fixture(autouse=True)
def rviz_is_there(monkeypatch: pytest.MonkeyPatch, logs: Path) -> None:
    import launch.logging
    from ament_index_python import packages

    monkeypatch.setattr(packages, "get_package_prefix", lambda _: "/x")
    monkeypatch.setattr(launch.logging.launch_config, "_log_dir", str(logs))


def visited(
    share: Path, name: str, argv: Sequence[str] = (), **given: str
) -> tuple[Any, list[Any]]:
    """The context and the processes that a launch with these arguments would start."""
    from launch.actions import ExecuteProcess, IncludeLaunchDescription

    description = load(share / "launch" / f"{name}.launch.py").generate_launch_description()
    source = launch.LaunchDescriptionSource(description)
    context, found = launch.LaunchContext(argv=argv), []

    def visit(entity: Any) -> None:
        if isinstance(entity, ExecuteProcess):
            found.append(entity)
            return
        for inner in entity.visit(context) or ():
            visit(inner)

    visit(IncludeLaunchDescription(source, launch_arguments=given.items()))
    return context, found


def parameters(share: Path, name: str, **given: str) -> tuple[str, dict[str, Any]]:
    """The parameter file that the node is given, and the values that go before it."""
    from launch_ros.utilities import evaluate_parameters

    context, processes = visited(share, name, **given)
    (node,) = (p for p in processes if getattr(p, "node_executable", "") == "detector_node")
    file, values = evaluate_parameters(context, node._Node__parameters)
    return str(file), dict(values)


def test_arguments_go_before_the_parameter_file(share: Path) -> None:
    default = str(share / "config" / "detector.yaml")
    assert parameters(share, "detector") == (default, {})
    assert parameters(
        share,
        "detector",
        model="/a/b.safetensors",
        device="cpu",
        score_threshold="0.1",
        max_boxes="500",
        use_sim_time="true",
        autostart="false",
    ) == (
        default,
        {
            "model": "/a/b.safetensors",
            "device": "cpu",
            "score_threshold": 0.1,
            "max_boxes": 500,
            "use_sim_time": True,
            "autostart": False,
        },
    )
    with pytest.raises(ValueError, match="max_boxes:=5e2: give a whole number"):
        parameters(share, "detector", max_boxes="5e2")


@pytest.fixture
def prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package is installed, as far as the launch files ask."""
    monkeypatch.setattr("launch_ros.substitutions.find_package.get_package_prefix", lambda _: "/x")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"output": "/a/out"}, {"score_threshold": 0.1, "max_boxes": 500}),
        (
            {"output": "/a/out", "score_threshold": "0.3"},
            {"score_threshold": 0.3, "max_boxes": 500},
        ),
    ],
)
def test_a_scored_replay_publishes_weak_boxes(
    share: Path, prefix: None, given: dict[str, str], expected: dict[str, float]
) -> None:
    _, values = parameters(share, "replay", bag="/a/bag", **given)
    assert values == {"use_sim_time": True, **expected}


@pytest.mark.parametrize(
    ("namespace", "node", "logger"),
    [("", "/detector", "detector"), ("left/car", "/left/car/detector", "left.car.detector")],
)
def test_all_follow_the_namespace(
    share: Path, prefix: None, namespace: str, node: str, logger: str
) -> None:

    given = {"bag": "/a/bag", "output": "/a/out", "namespace": namespace, "log_level": "debug"}
    context, processes = visited(share, "replay", **given, rviz="true")
    nodes = {p.node_executable: p for p in processes if hasattr(p, "node_executable")}
    assert f"{logger}:=debug" in nodes["detector_node"]._Node__arguments
    commands = [[part[0].describe() for part in process.cmd] for process in processes]
    (record,) = (words for words in commands if "'record'" in words)
    assert record[record.index("'--detector'") + 1] == f"'{node}'"
    (layout,) = (word for word in nodes["rviz2"]._Node__arguments if word.endswith(".rviz"))
    topics = shown_topics(Path(layout))
    assert f"{node}/markers" in topics
    assert f"{node}/debug/overlay/cam_front/compressed" in topics


def shown_topics(layout: Path) -> set[str]:
    shown = yaml.safe_load(layout.read_text())["Visualization Manager"]["Displays"]
    return {display["Topic"]["Value"] for display in shown if "Topic" in display}


def test_rviz_shows_what_the_node_publishes(share: Path) -> None:
    topics = shown_topics(share / "config" / "detector.rviz")
    assert "/detector/markers" in topics
    assert len([t for t in topics if t.startswith("/detector/debug/overlay/cam_")]) == 6


@pytest.mark.parametrize(
    ("lines", "fixed", "base"),
    [
        ("{fixed_frame: /odom, base_frame: body}", "odom", "body"),
        ("{base_frame: body, ego_motion_source: none}", "body", "body"),
        ("{tf_timeout: much}", "map", "base_link"),
    ],
)
def test_rviz_has_the_frames_of_the_parameter_file(
    share: Path, prefix: None, tmp_path: Path, lines: str, fixed: str, base: str
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(f"/**: {{ros__parameters: {lines}}}")
    _, processes = visited(share, "detector", params_file=str(file), rviz="true")
    nodes = {p.node_executable: p for p in processes if hasattr(p, "node_executable")}
    (layout,) = (word for word in nodes["rviz2"]._Node__arguments if word.endswith(".rviz"))
    shown = yaml.safe_load(Path(layout).read_text())["Visualization Manager"]
    assert shown["Global Options"]["Fixed Frame"] == fixed
    assert shown["Views"]["Current"]["Target Frame"] == base
    (grid,) = (d for d in shown["Displays"] if "Reference Frame" in d)
    assert grid["Reference Frame"] == base


def test_a_missing_parameter_file_stops_the_launch(share: Path) -> None:
    with pytest.raises(FileNotFoundError, match="params_file:=/no/file.yaml: there is no such"):
        visited(share, "detector", params_file="/no/file.yaml")


def test_a_missing_rviz_stops_the_launch_before_the_detector(
    share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ament_index_python import packages

    def missing(name: str) -> str:
        raise packages.PackageNotFoundError(name)

    monkeypatch.setattr(packages, "get_package_prefix", missing)
    with pytest.raises(RuntimeError, match="rviz2 is not installed"):
        visited(share, "detector", rviz="true")


@pytest.mark.parametrize("name", ["detector", "replay"])
def test_misspelled_arguments_are_told(
    share: Path, prefix: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    import launch.logging

    told: list[str] = []
    monkeypatch.setattr(launch.logging.get_logger("detector.launch"), "warning", told.append)
    bag = {"bag": "/a/bag"} if name == "replay" else {}
    argv = ["scorethreshold:=0.2", "model:=x", "zzz:=1", *(f"{k}:={v}" for k, v in bag.items())]
    visited(share, name, argv=argv, **bag)
    assert told == [
        "there is no argument scorethreshold, it is ignored: did you mean score_threshold?"
    ]


@pytest.mark.parametrize(("distro", "variable"), [("jazzy", "FASTRTPS"), ("kilted", "FASTDDS")])
@pytest.mark.parametrize("chosen", [None, "/own.xml"])
def test_the_fast_dds_profile_is_set_unless_the_user_chose_one(
    share: Path, monkeypatch: pytest.MonkeyPatch, distro: str, variable: str, chosen: str | None
) -> None:
    variable += "_DEFAULT_PROFILES_FILE"
    monkeypatch.setenv("ROS_DISTRO", distro)
    monkeypatch.delenv(variable, raising=False)
    if chosen:
        monkeypatch.setenv(variable, chosen)
    context, _ = visited(share, "detector")
    assert context.environment[variable] == (chosen or str(share / "config" / "fastdds.xml"))


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (2, 1)])
def test_the_launch_fails_with_the_detector(share: Path, code: int, expected: int) -> None:
    from launch.actions import ExecuteProcess

    module = load(share / "launch" / "detector.launch.py")
    process = ExecuteProcess(cmd=["sh", "-c", f"exit {code}"], on_exit=module.failed)
    service = launch.LaunchService(argv=[])
    service.include_launch_description(launch.LaunchDescription([process]))
    assert service.run() == expected


def played(share: Path, **given: str) -> list[list[str]]:
    """Command lines of a replay, without the detector's."""
    from launch.utilities import perform_substitutions

    context, processes = visited(share, "replay", bag="/a/bag", **given)
    tools = [process for process in processes if not hasattr(process, "node_executable")]
    return [[perform_substitutions(context, word) for word in p.cmd] for p in tools]


def test_the_player_of_ros_waits_until_the_detector_is_active(share: Path, prefix: None) -> None:
    lines = played(share, player="ros2", namespace="car", patience="7")
    assert [line[1:] for line in lines] == [["bag", "wait", "/car/detector", "--seconds", "7"]]


def test_a_replay_may_begin_again(share: Path, prefix: None) -> None:
    assert "--loop" not in played(share)[0]
    assert played(share, loop="true")[0][-1] == "--loop"
    with pytest.raises(RuntimeError, match="loop:=true has no end"):
        played(share, loop="true", output="/tmp/x")


@pytest.mark.parametrize("name", ["min_nds", "min_coverage"])
def test_a_threshold_without_a_score_is_refused(share: Path, prefix: None, name: str) -> None:
    with pytest.raises(RuntimeError, match=f"{name}:= needs output:=, a folder"):
        played(share, **{name: "0.9"})


@pytest.mark.parametrize(("keep_open", "shut_down"), [("false", True), ("true", False)])
def test_the_viewer_may_stay(share: Path, prefix: None, keep_open: str, shut_down: bool) -> None:
    from launch.actions import RegisterEventHandler, Shutdown, TimerAction

    module = load(share / "launch" / "replay.launch.py")
    context = launch.LaunchContext()
    for argument in module.ARGUMENTS:
        argument.visit(context) if argument.name != "bag" else None
    told = {"bag": "/a/bag", "detector_name": "/detector", "keep_open": keep_open}
    context.launch_configurations.update(told)
    (after,) = (e for e in module.processes(context) if isinstance(e, RegisterEventHandler))
    (timer,) = after.event_handler._OnActionEventBase__on_event(
        type("Exited", (), {"returncode": 0, "process_name": "play"})(), context
    )
    assert isinstance(timer, TimerAction)
    assert any(isinstance(action, Shutdown) for action in timer.actions) is shut_down


@pytest.mark.parametrize(("played", "scored", "expected"), [(0, 0, 0), (0, 1, 1), (2, 0, 1)])
def test_a_scored_replay_exits_with_the_verdict(
    share: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    played: int,
    scored: int,
    expected: int,
) -> None:
    """Player, then the recorder's end, then the scorer; the tool here only notes its calls."""
    from launch.actions import OpaqueFunction, SetLaunchConfiguration

    calls, tool = tmp_path / "calls", tmp_path / "lib" / "labeldistill_ros" / "labeldistill"
    tool.parent.mkdir(parents=True)
    tool.write_text(
        f"#!/bin/sh\necho \"$@\" >> '{calls}'\n"
        f"case $2 in score) exit {scored};; replay) exit {played};;\n"
        "record) trap 'exit 0' INT; while true; do sleep 0.1; done;;\nesac\n"
    )
    tool.chmod(0o755)
    module = load(share / "launch" / "replay.launch.py")
    monkeypatch.setattr(module, "FindPackagePrefix", lambda _: str(tmp_path))
    monkeypatch.setattr(module, "LAST_BOXES_S", 0.5)
    given = {"bag": "/a/bag", "output": str(tmp_path / "out"), "min_nds": "0.3"}
    given["detector_name"] = "/car/detector"
    service = launch.LaunchService(argv=[])
    service.include_launch_description(
        launch.LaunchDescription(
            [
                *(SetLaunchConfiguration(name, value) for name, value in given.items()),
                *module.ARGUMENTS,
                OpaqueFunction(function=module.processes),
            ]
        )
    )
    assert service.run() == expected
    told = calls.read_text().splitlines()
    assert sorted(told[:2]) == [
        f"bag record {tmp_path}/out/run --detector /car/detector --use-sim-time --force",
        "bag replay /a/bag --rate 1.0 --wait-for 60.0 --detector /car/detector",
    ]
    if played:
        assert len(told) == 2
        return
    score = f"bag score /a/bag {tmp_path}/out/run --topic /car/detector/detections --json"
    assert told[2].startswith(score)
    assert told[2].endswith("--min-nds 0.3")
    assert len(told) == 3
