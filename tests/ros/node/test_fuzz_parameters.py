# SPDX-License-Identifier: Apache-2.0
"""Random values of every type for every parameter: taken, or refused by name; never a crash.

At the start a bad value ends the configuration with a message; at run time it is refused with a
reason, and the node goes on with what it had.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rclpy.context import Context
from rclpy.parameter import Parameter

from labeldistill_core.errors import ConfigError
from labeldistill_ros.node.detector_node import DetectorNode
from labeldistill_ros.parameters import CameraParameters, ClassParameters, Parameters, Spec, flatten
from labeldistill_ros.testing.simulated_drive import RunningNode
from labeldistill_ros.testing.vehicle import Vehicle
from tests.support.fuzzing import FACTOR
from tests.support.rig import PATIENT, tiny_config

_ANY: tuple[Any, ...] = (
    True,
    False,
    0,
    1,
    -1,
    7,
    2**40,
    -(2**62),
    0.0,
    0.5,
    -3.0,
    1e300,
    math.nan,
    math.inf,
    -math.inf,
    "",
    "a",
    "CAM_FRONT",
    "/",
    "/a b",
    "//x",
    "~",
    "~nobody/x",
    "ä\n%s{}",
    "/nowhere/none.safetensors",
    "x" * 2000,
    [1, 2],
    [0.5],
    ["a"],
    [True],
    [],
    [b"a"],
    None,
)


def _declared() -> dict[str, tuple[Any, Spec]]:
    """Default and specification of every parameter of the tiny model's node."""
    found = list(flatten(Parameters()))
    for camera in tiny_config().cameras:
        found += flatten(CameraParameters(), f"cameras.{camera}.")
    for name in tiny_config().class_names:
        found += flatten(ClassParameters(), f"classes.{name}.")
    return {name: (default, spec) for name, default, spec in found}


DECLARED = _declared()


def _good(default: Any, spec: Spec, rng: random.Random) -> Any:
    """A value that has to be taken."""
    if spec.choices:
        return rng.choice(spec.choices)
    if isinstance(default, bool):
        return rng.random() < 0.5
    if spec.bounds:
        low, high = spec.bounds
        value = rng.choice((low, high, rng.uniform(low, high)))
        return round(value) if isinstance(default, int) else float(value)
    return rng.choice((math.nan, rng.uniform(-0.2, 0.2))) if isinstance(default, float) else default


def _is_good(value: Any, default: Any, spec: Spec) -> bool:
    """Whether type, range and choices of a parameter admit a value."""
    if type(value) is not type(default):
        return False
    if spec.choices:
        return value in spec.choices
    if spec.farthest is not None and abs(value) > spec.farthest:
        return False
    return not spec.bounds or bool(spec.bounds[0] <= value <= spec.bounds[1])


def _random(name: str, rng: random.Random) -> Any:
    default, spec = DECLARED[name]
    if rng.random() < 0.5:
        return _good(default, spec, rng)
    if spec.bounds and rng.random() < 0.3:
        return type(default)(rng.choice((spec.bounds[0] - 1, spec.bounds[1] + 1)))
    return rng.choice(_ANY)


@pytest.fixture
def make(ros_context: Context) -> Iterator[Callable[..., DetectorNode]]:
    nodes: list[DetectorNode] = []

    def make(**values: Any) -> DetectorNode:
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        nodes.append(DetectorNode(context=ros_context, parameter_overrides=overrides))
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()
        node.destroy_node()


def _ends(node: DetectorNode, told: str) -> str:
    """What came of `start`: active, or unconfigured with a reason."""
    state = node._state_machine.current_state[1]
    assert "Traceback" not in told
    if state == "unconfigured":
        assert "cannot configure: " in told or "cannot activate: " in told, told
    return state


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(60 * FACTOR))
def test_random_parameters_at_the_start(
    make: Callable[..., DetectorNode],
    tiny_model: Path,
    capfd: pytest.CaptureFixture[str],
    seed: int,
) -> None:
    rng = random.Random(seed)
    given = {name: _random(name, rng) for name in rng.sample(sorted(DECLARED), rng.randint(1, 3))}
    bad = [name for name, value in given.items() if not _is_good(value, *DECLARED[name])]
    values = {"model": str(tiny_model), "device": "cpu", **given}
    refused = ""
    try:
        node = make(**values)
    except ConfigError as error:
        refused = str(error)
    if refused:
        assert any(name in refused for name in bad), refused
        return
    started = node.start()
    state = _ends(node, capfd.readouterr().err)
    assert started == (state == "active")
    assert not (started and bad), bad
    assert node.get_parameter("max_boxes").value >= 1


@pytest.mark.fuzz
def test_every_parameter_takes_every_good_value_and_no_bad_one(
    make: Callable[..., DetectorNode], tiny_model: Path
) -> None:
    """Each against all of the list, one after the other, in a node that is not configured."""
    rng = random.Random(3)
    node = make(model=str(tiny_model), device="cpu")
    assert node.start()
    node.trigger_deactivate()
    node.trigger_cleanup()
    for name, (default, spec) in DECLARED.items():
        for value in (*_ANY, *(_good(default, spec, rng) for _ in range(5)), default):
            (result,) = node.set_parameters([Parameter(name, value=value)])
            assert result.successful == _is_good(value, default, spec), (name, value, result)
            assert result.successful or result.reason, (name, value)
    assert node.start()


@pytest.mark.fuzz
def test_random_parameters_at_run_time(
    vehicle: Vehicle, detector: Callable[..., RunningNode]
) -> None:
    """Only live ones change, only to good values; the node detects on with what it has."""
    running = detector(**PATIENT)
    node, rng = running.node, random.Random(4)
    vehicle.connect()
    n = vehicle.drive_until(lambda: running.results, 0)
    for cycle in range(n, n + 8):
        for name in rng.sample(sorted(DECLARED), 40):
            default, spec = DECLARED[name]
            value = _random(name, rng)
            before = node.get_parameter(name).value
            (result,) = node.set_parameters([Parameter(name, value=value)])
            taken = spec.live and _is_good(value, default, spec)
            assert result.successful == taken, (name, value, result)
            after = node.get_parameter(name).value
            assert repr(after) == repr(value if taken else before), name
        vehicle.drive([cycle])
    assert set(vehicle.outcomes()) <= {"processed", "incomplete", "dropped"}
    live = {name: default for name, (default, spec) in DECLARED.items() if spec.live}
    node.set_parameters(
        [Parameter(n, value=v) for n, v in {**live, "score_threshold": 0.0}.items()]
    )
    vehicle.boxes.clear()
    vehicle.drive_until(lambda: vehicle.boxes and vehicle.boxes[-1].detections, n + 8)
