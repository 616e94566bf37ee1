# SPDX-License-Identifier: Apache-2.0
"""The launch files, where the launch packages of a ROS distribution are."""

from __future__ import annotations

import importlib.util
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


def parameters(share: Path, **given: str) -> list[Any]:
    """What the node is given: the file's name, then the values."""
    module = load(share / "launch" / "detector.launch.py")
    context = launch.LaunchContext()
    for argument in module.ARGUMENTS:
        argument.execute(context)
    context.launch_configurations.update(given)
    (node,) = module.detector(context)
    return list(node._Node__parameters)


def test_arguments_go_before_the_parameter_file(share: Path) -> None:
    from launch_ros.utilities import evaluate_parameters

    def values(**given: str) -> dict[str, Any]:
        file, rest = evaluate_parameters(launch.LaunchContext(), parameters(share, **given))
        assert Path(file) == share / "config" / "detector.yaml"
        return dict(rest)

    assert values() == {}
    assert values(
        model="/a/b.safetensors",
        device="cpu",
        score_threshold="0.1",
        max_boxes="500",
        use_sim_time="true",
        autostart="false",
    ) == {
        "model": "/a/b.safetensors",
        "device": "cpu",
        "score_threshold": 0.1,
        "max_boxes": 500,
        "use_sim_time": True,
        "autostart": False,
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("", "")),
        ({"output": "/a/out"}, ("0.1", "500")),
        ({"output": "/a/out", "score_threshold": "0.3"}, ("0.3", "500")),
    ],
)
def test_a_scored_replay_publishes_weak_boxes(
    share: Path, given: dict[str, str], expected: tuple[str, str]
) -> None:
    module = load(share / "launch" / "replay.launch.py")
    detector = load(share / "launch" / "detector.launch.py")
    context = launch.LaunchContext()
    context.launch_configurations.update(given)
    for action in (
        *module.ARGUMENTS[1:],
        launch.actions.OpaqueFunction(function=module.weak_boxes),
    ):
        for entity in action.visit(context) or ():
            entity.visit(context)
    for argument in detector.ARGUMENTS:  # as the included file declares them
        argument.visit(context)
    assert tuple(context.launch_configurations[name] for name in module.WEAK_BOXES) == expected


def test_rviz_shows_what_the_node_publishes(share: Path) -> None:
    text = (share / "config" / "detector.rviz").read_text()
    shown = yaml.safe_load(text)["Visualization Manager"]["Displays"]
    topics = {display["Topic"]["Value"] for display in shown if "Topic" in display}
    assert "/detector/markers" in topics
    assert "/cam_front_left/image_raw/compressed" in topics


@pytest.mark.parametrize(
    ("scored", "expected", "namespace", "node"),
    [(0, 0, "", "/detector"), (1, 1, "/left/car", "/left/car/detector")],
)
def test_a_scored_replay_exits_with_the_verdict(
    share: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scored: int,
    expected: int,
    namespace: str,
    node: str,
) -> None:
    """Player, then the recorder's end, then the scorer; the tool here only notes its calls."""
    from launch.actions import OpaqueFunction, SetLaunchConfiguration

    calls, tool = tmp_path / "calls", tmp_path / "lib" / "labeldistill_ros" / "labeldistill"
    tool.parent.mkdir(parents=True)
    tool.write_text(
        f"#!/bin/sh\necho \"$@\" >> '{calls}'\n"
        f"case $2 in score) exit {scored};;\n"
        "record) trap 'exit 0' INT; while true; do sleep 0.1; done;;\nesac\n"
    )
    tool.chmod(0o755)
    module = load(share / "launch" / "replay.launch.py")
    monkeypatch.setattr(module, "FindPackagePrefix", lambda _: str(tmp_path))
    monkeypatch.setattr(module, "_LAST_BOXES_S", 0.5)
    given = {"bag": "/a/bag", "output": str(tmp_path / "out"), "min_nds": "0.3"}
    given["namespace"] = namespace
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
        f"bag record {tmp_path}/out/run --detector {node} --use-sim-time --force",
        "bag replay /a/bag --rate 1.0 --wait-for 60.0",
    ]
    assert told[2].startswith(f"bag score /a/bag {tmp_path}/out/run --topic {node}/detections --")
    assert told[2].endswith("--min-nds 0.3")
    assert len(told) == 3
