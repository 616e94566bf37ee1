# SPDX-License-Identifier: Apache-2.0
"""Parameters: typed, explained, checked; the files that list them agree with the code."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.errors import ConfigError
from labeldistill_ros.parameter_docs import with_table, yaml_text
from labeldistill_ros.parameter_store import ParameterStore, descriptor
from labeldistill_ros.parameters import (
    CameraParameters,
    Parameters,
    SyncParameters,
    VehicleParameters,
    flatten,
)
from labeldistill_ros.sets.options import sync_options

Make = Callable[..., ParameterStore]


@pytest.fixture
def store(ros_context: Context) -> Iterator[Make]:
    nodes: list[Node] = []

    def make(**values: Any) -> ParameterStore:
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        nodes.append(Node("checked", context=ros_context, parameter_overrides=overrides))
        return ParameterStore(nodes[-1])

    yield make
    for node in nodes:
        node.destroy_node()


def test_what_is_set_arrives_in_the_tree(store: Make) -> None:
    parameters = store(**{"sync.tolerance": 0.01, "max_boxes": 7}).declare(Parameters())
    assert parameters.sync.tolerance == 0.01
    assert parameters.max_boxes == 7
    assert parameters.diagnostics == Parameters().diagnostics


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sync.tolerance", 1, "sync.tolerance must be of type float, for example 0.03"),
        ("sync.tolerance", 7.0, "sync.tolerance: use a value from 0.001 to 1"),
        ("max_boxes", 0, "max_boxes: use a value from 1 to 5000"),
        ("transport", "jpg", "'jpg' is none of 'compressed', 'raw'"),
        ("model", 3, "model must be of type str"),
    ],
)
def test_impossible_values_are_named(store: Make, name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        store(**{name: value}).declare(Parameters())


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e308, -5.0, 0.51])
def test_cameras_further_apart_than_half_a_second_are_refused(store: Make, value: float) -> None:
    given = store(**{"cameras.CAM_BACK.time_offset": value, "cameras.CAM_FRONT.time_offset": -0.5})
    with pytest.raises(ConfigError, match=r"time_offset: .* is not from -0.5 to 0.5"):
        given.declare(CameraParameters(), "cameras.CAM_BACK.")
    assert given.declare(CameraParameters(), "cameras.CAM_FRONT.").time_offset == -0.5
    assert math.isnan(given.declare(CameraParameters(), "cameras.CAM_LEFT.").time_offset)


def test_misspelled_names_get_a_hint(store: Make) -> None:
    checked = store(**{"sync.tolerence": 0.01, "zzz": 1, "use_sim_time": False})
    checked.declare(Parameters())
    assert checked.unknown() == [
        "there is no parameter sync.tolerence: did you mean sync.tolerance?",
        "there is no parameter zzz, it is ignored",
    ]


def test_cameras_that_the_model_lacks_are_told_with_those_that_it_has(store: Make) -> None:
    checked = store(**{"cameras.FRONT.frame_id": "front", "cameras.CAM_BACK.frame": "back"})
    checked.vehicle(("CAM_FRONT", "CAM_BACK"), ())
    assert checked.unknown() == [
        "there is no parameter cameras.FRONT.frame_id: the model has no camera FRONT, its cameras "
        "are CAM_FRONT, CAM_BACK",
        "there is no parameter cameras.CAM_BACK.frame: did you mean cameras.CAM_BACK.frame_id?",
    ]


def test_cameras_that_the_vehicle_lacks_are_left_out(store: Make) -> None:
    names = ("CAM_FRONT", "CAM_BACK")
    off = {"cameras.CAM_FRONT.enabled": False}
    assert tuple(store(**off).vehicle(names, ()).cameras) == ("CAM_BACK",)
    off |= {"cameras.CAM_BACK.enabled": False}
    with pytest.raises(ConfigError, match="none of CAM_FRONT, CAM_BACK is enabled"):
        store(**off).vehicle(names, ())


def test_descriptions_say_which_parameters_are_live() -> None:
    found = {name: descriptor(value, spec) for name, value, spec in flatten(Parameters())}
    assert found["max_boxes"].additional_constraints == "live: holds from the next image on"
    assert found["transport"].additional_constraints == (
        "one of compressed, raw; read when the node is configured"
    )


def test_every_parameter_is_explained_and_has_a_default_in_its_bounds() -> None:
    for name, value, spec in [*flatten(Parameters()), *flatten(CameraParameters())]:
        assert spec.text.endswith("."), name
        assert not spec.problem(value), name
        assert spec.bounds is None or spec.bounds[0] <= value <= spec.bounds[1], name


def test_files_agree_with_the_code(repository: Path) -> None:
    """Write them anew by `python -m labeldistill_ros.parameter_docs`."""
    assert (repository / "config" / "detector.yaml").read_text() == yaml_text()
    page = (repository / "docs" / "node.md").read_text()
    assert with_table(page) == page
    assert "| `sync.tolerance` | `0.03` |" in page


def test_parameter_file_has_all_defaults() -> None:
    tree = yaml.safe_load(yaml_text())["/**"]["ros__parameters"]
    for name, value, _ in flatten(Parameters()):
        group, _, leaf = name.rpartition(".")
        assert (tree[group] if group else tree)[leaf] == value


def vehicle(cameras: dict[str, CameraParameters], anchor: str = "") -> VehicleParameters:
    return VehicleParameters(Parameters(sync=SyncParameters(anchor=anchor)), cameras, {})


def test_synchronizer_options() -> None:
    cameras = {name: CameraParameters() for name in CAMERAS}
    options = sync_options(vehicle(cameras))
    assert (options.anchor, options.cameras, options.offsets_s) == ("CAM_FRONT", CAMERAS, {})
    cameras["CAM_BACK"] = CameraParameters(time_offset=0.025)
    assert sync_options(vehicle(cameras)).offsets_s == {"CAM_BACK": 0.025}
    alone = sync_options(vehicle({"CAM_BACK": CameraParameters()}))
    assert (alone.anchor, alone.min_cameras) == ("CAM_BACK", 1)
    with pytest.raises(ConfigError, match="sync.anchor is 'FRONT': use one of the model's cameras"):
        sync_options(vehicle(cameras, "FRONT"))


@pytest.mark.parametrize(
    ("cameras", "wanted", "fewest"), [(6, 4, 4), (6, 6, 5), (4, 4, 3), (2, 4, 1), (1, 4, 1)]
)
def test_an_incomplete_set_lacks_a_camera(cameras: int, wanted: int, fewest: int) -> None:
    """Else `mask` would be `skip` for a vehicle of few cameras."""
    chosen = {name: CameraParameters() for name in CAMERAS[:cameras]}
    parameters = Parameters(sync=SyncParameters(min_cameras=wanted))
    assert sync_options(VehicleParameters(parameters, chosen, {})).min_cameras == fewest


def test_the_anchor_has_no_offset_from_itself() -> None:
    cameras = {name: CameraParameters(time_offset=0.0) for name in CAMERAS}
    assert sync_options(vehicle(cameras)).offsets_s["CAM_FRONT"] == 0.0
    cameras["CAM_FRONT"] = CameraParameters(time_offset=0.5)
    with pytest.raises(ConfigError, match="CAM_FRONT.time_offset is 0.5, but CAM_FRONT is the"):
        sync_options(vehicle(cameras))
    assert sync_options(vehicle(cameras, "CAM_BACK")).anchor == "CAM_BACK"
