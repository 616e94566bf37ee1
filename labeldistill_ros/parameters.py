# SPDX-License-Identifier: Apache-2.0
"""All parameters of the node: one typed tree, from which ROS declarations and checks are made.

A field's path is the parameter's name (`sync.tolerance`). Its text, range and choices stand in its
metadata, are shown by `ros2 param describe` and head `config/detector.yaml`.

Why this is not `generate_parameter_library`: that makes a module from YAML while colcon builds, so
a checkout that is installed with pip would have no parameters. It knows neither parameters for each
camera of a model that is read at run time, nor checks across fields, and its names cannot be
checked by mypy before they are generated. Here the dataclass is the only source, and
`config/detector.yaml` and the table in `docs/node.md` are made from it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy import exceptions
from rclpy.node import Node
from rclpy.parameter import Parameter

from labeldistill_core.errors import ConfigError
from labeldistill_ros.sync.synchronizer import SyncOptions

P = TypeVar("P")

_OTHERS = ("qos_overrides.", "use_sim_time", "start_type_description_service")
"""Parameters that rclpy declares by itself."""


@dataclass(frozen=True)
class Spec:
    """What is known of one parameter beyond its type."""

    text: str
    """One or two sentences for people."""
    bounds: tuple[float, float] | None = None
    """Smallest and largest value."""
    choices: tuple[str, ...] = ()
    """Allowed strings; any when empty."""
    live: bool = False
    """Can change while the node is configured."""

    def problem(self, value: object) -> str:
        """Why a value cannot be taken; empty when it can."""
        if self.choices and value not in self.choices:
            return f"{value!r} is none of {', '.join(map(repr, self.choices))}"
        return ""


def _parameter(default: Any, text: str, **spec: Any) -> Any:
    return field(default=default, metadata={"spec": Spec(text, **spec)})


@dataclass(frozen=True)
class SyncParameters:
    """How images of one instant are found."""

    policy: Literal["anchor", "approximate_time"] = _parameter(
        "anchor",
        "`anchor` learns the cameras' phases and never mixes cycles; `approximate_time` is "
        "message_filters' ApproximateTimeSynchronizer, which has no answer to a dead camera.",
        choices=("anchor", "approximate_time"),
    )
    slop: float = _parameter(
        0.055,
        "Of `approximate_time`: largest difference of stamps in a set, seconds; above the "
        "cameras' spread, below the period less the largest pause.",
        bounds=(0.0, 1.0),
    )
    anchor: str = _parameter(
        "",
        "Camera whose stamp the results carry, while it lives. Empty: CAM_FRONT or the first.",
    )
    tolerance: float = _parameter(
        0.03,
        "Seconds that a stamp may deviate from its camera's phase, but at most 0.4 periods.",
        bounds=(0.001, 1.0),
    )
    deadline: float = _parameter(
        0.0,
        "Seconds to wait for missing cameras after the anchor's image. 0: 2.4 learned periods.",
        bounds=(0.0, 2.0),
    )
    max_age: float = _parameter(
        0.25,
        "Seconds of silence after which a camera counts as dead (never less than 2.5 periods).",
        bounds=(0.01, 60.0),
    )
    min_cameras: int = _parameter(
        4, "Fewest cameras that an incomplete set needs under `mask`.", bounds=(1, 64)
    )
    missing_camera_policy: Literal["skip", "mask"] = _parameter(
        "skip",
        "Incomplete sets: `skip` drops them, `mask` detects without the missing cameras' views.",
        choices=("skip", "mask"),
    )


@dataclass(frozen=True)
class HistoryParameters:
    """When past frames are taken, and when they are forgotten."""

    tolerance: float = _parameter(
        0.1,
        "Seconds that a past frame may be older or younger than the model wants it.",
        bounds=(0.001, 1.0),
    )
    reset_gap: float = _parameter(
        2.0, "Seconds between two sets after which the past is dropped.", bounds=(0.05, 60.0)
    )
    max_speed: float = _parameter(
        100.0,
        "Metres a second; a pose that moves faster has jumped, and the past is dropped.",
        bounds=(1.0, 10000.0),
    )


@dataclass(frozen=True)
class DiagnosticsParameters:
    """When the node reports trouble on /diagnostics."""

    period: float = _parameter(0.5, "Seconds between two reports.", bounds=(0.05, 60.0))
    camera_timeout: float = _parameter(
        0.5, "Seconds without an image after which a camera is an ERROR.", bounds=(0.01, 60.0)
    )
    max_processing_time: float = _parameter(
        0.1,
        "Seconds from the last image of a set to its boxes; a 95th percentile above is a WARN.",
        bounds=(0.001, 60.0),
    )
    max_delay: float = _parameter(
        1.0,
        "Seconds without boxes, while images come, after which processing is an ERROR.",
        bounds=(0.01, 600.0),
    )


@dataclass(frozen=True)
class CameraParameters:
    """Where one camera is found; declared for every camera of the model."""

    image_topic: str = _parameter(
        "",
        "Full name of the image topic. Empty: <camera_prefix>/<camera>/image_raw, with /compressed "
        "behind it for the compressed transport; <camera> in lower case.",
    )
    info_topic: str = _parameter(
        "", "Full name of the camera_info topic. Empty: <camera_prefix>/<camera>/camera_info."
    )
    frame_id: str = _parameter("", "Optical frame. Empty: that of the image's header.")
    transport: Literal["", "compressed", "raw"] = _parameter(
        "", "Of this camera. Empty: the common transport.", choices=("", "compressed", "raw")
    )
    time_offset: float = _parameter(
        math.nan, "Seconds from the anchor's exposure to this camera's. NaN: learned from stamps."
    )


@dataclass(frozen=True)
class ClassParameters:
    """Of one class of boxes; declared for every class of the model."""

    score_threshold: float = _parameter(
        math.nan,
        "Lowest published score of this class; above 1 it is left out. NaN: score_threshold.",
        live=True,
    )


@dataclass(frozen=True)
class Parameters:
    """All but those of the single cameras."""

    model: str = _parameter(
        "",
        "Student checkpoint (.safetensors) or graph (.onnx). Empty: the demo model.",
    )
    model_sha256: str = _parameter("", "Hash that the checkpoint's file has to have. Empty: any.")
    backend: Literal["auto", "torch", "onnx"] = _parameter(
        "auto",
        "What computes the network: torch or onnxruntime (float32, CPU). auto: torch for a "
        "checkpoint, onnxruntime for a graph.",
        choices=("auto", "torch", "onnx"),
    )
    device: str = _parameter("auto", "cpu, cuda:0 and so on, or auto: CUDA where there is one.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = _parameter(
        "float32",
        "Of the convolutions. auto: what the device computes fastest, float16 on GPUs, bfloat16 on "
        "newer CPUs.",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    warmup_iterations: int = _parameter(
        5,
        "Steps over black images when the node is configured, so that the first real set is not "
        "late.",
        bounds=(0, 100),
    )
    autostart: bool = _parameter(True, "Configure and activate at the start, unasked.")
    camera_prefix: str = _parameter("", "Before all derived camera topics, for example /sensing.")
    transport: Literal["compressed", "raw"] = _parameter(
        "compressed",
        "Image messages: compressed (JPEG, PNG) or raw.",
        choices=("compressed", "raw"),
    )
    images_rectified: bool = _parameter(
        False, "The image topics are rectified: use P and R of camera_info rather than K and D."
    )
    decode_threads: int = _parameter(
        0, "Threads that decode images. 0: one for each core, at most six.", bounds=(0, 64)
    )
    fixed_frame: str = _parameter(
        "map", "Frame that does not move with the vehicle; odom does as well."
    )
    base_frame: str = _parameter("base_link", "Frame of the vehicle: x forward, y left, z up.")
    output_frame: str = _parameter("base_link", "Frame of the published boxes.")
    ego_motion_source: Literal["tf", "odometry", "none"] = _parameter(
        "tf",
        "Where the vehicle is: from /tf, from a nav_msgs/Odometry topic, or unknown, which costs "
        "the history.",
        choices=("tf", "odometry", "none"),
    )
    odometry_topic: str = _parameter("/odom", "Topic of the odometry, where that is the source.")
    missing_pose_policy: Literal["optional", "required"] = _parameter(
        "optional",
        "Sets whose pose is not known: `optional` detects without history and tells, `required` "
        "refuses them.",
        choices=("optional", "required"),
    )
    tf_timeout: float = _parameter(
        0.1, "Seconds to wait for a pose that is as new as the images.", bounds=(0.0, 5.0)
    )
    score_threshold: float = _parameter(
        0.3,
        "Boxes of a lower score are not published. For nuScenes scores use 0.1.",
        bounds=(0.0, 1.0),
        live=True,
    )
    max_boxes: int = _parameter(200, "At most this many, the best.", bounds=(1, 5000), live=True)
    max_range: float = _parameter(
        0.0,
        "Boxes whose centre is further from the vehicle are not published, metres. 0: all.",
        bounds=(0.0, 1000.0),
        live=True,
    )
    max_rate: float = _parameter(
        0.0,
        "Sets a second that are processed at most; the others are dropped. 0: all.",
        bounds=(0.0, 1000.0),
        live=True,
    )
    publish_markers: bool = _parameter(True, "Publish ~/markers for RViz.", live=True)
    detect_without_listeners: bool = _parameter(
        False,
        "Detect even when nobody subscribes to the boxes, so that the history is there at once.",
        live=True,
    )
    sync: SyncParameters = field(default_factory=SyncParameters)
    history: HistoryParameters = field(default_factory=HistoryParameters)
    diagnostics: DiagnosticsParameters = field(default_factory=DiagnosticsParameters)


def sync_options(sync: SyncParameters, cameras: Mapping[str, CameraParameters]) -> SyncOptions:
    """Options of the synchronizer.

    Args:
        sync: common parameters.
        cameras: all cameras of the model, in its order.

    Raises:
        ConfigError: they contradict each other or the model.
    """
    names = tuple(cameras)
    preferred = "CAM_FRONT" if "CAM_FRONT" in names else names[0]
    if sync.anchor and sync.anchor not in names:
        raise ConfigError(
            f"sync.anchor is {sync.anchor!r}: use one of the model's cameras {', '.join(names)}"
        )
    offsets = {name: own.time_offset for name, own in cameras.items()}
    return SyncOptions(
        names,
        sync.anchor or preferred,
        sync.tolerance,
        sync.deadline or None,
        sync.max_age,
        min(sync.min_cameras, len(names)),
        sync.missing_camera_policy,
        {name: offset for name, offset in offsets.items() if math.isfinite(offset)},
    )


def flatten(tree: object, prefix: str = "") -> Iterator[tuple[str, Any, Spec]]:
    """Name, value and specification of each parameter of a tree."""
    for entry in fields(tree):  # type: ignore[arg-type]
        value = getattr(tree, entry.name)
        if is_dataclass(value):
            yield from flatten(value, f"{prefix}{entry.name}.")
        else:
            yield prefix + entry.name, value, entry.metadata["spec"]


def _descriptor(value: object, spec: Spec) -> ParameterDescriptor:
    constraints = f"one of {', '.join(spec.choices)}" if spec.choices else ""
    descriptor = ParameterDescriptor(description=spec.text, additional_constraints=constraints)
    if spec.bounds and isinstance(value, int):
        descriptor.integer_range = [
            IntegerRange(from_value=int(spec.bounds[0]), to_value=int(spec.bounds[1]))
        ]
    elif spec.bounds:
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(spec.bounds[0]), to_value=float(spec.bounds[1]))
        ]
    return descriptor


class ParameterStore:
    """Declares parameter trees on a node, checks what is set and gives out typed trees."""

    def __init__(self, node: Node) -> None:
        """Start checking; nothing is declared yet."""
        self._node = node
        self._specs: dict[str, Spec] = {}
        self.locked = False
        """Whether only live parameters can change."""
        self.revision = 0
        """Counts changes; they are in force once the callback that brought them has ended."""
        node.add_on_set_parameters_callback(self._check)

    def declare(self, defaults: P, prefix: str = "") -> P:
        """The tree with what the user set; parameters that are declared already are only read.

        Raises:
            ConfigError: a value is of the wrong type or out of range.
        """
        values: dict[str, Any] = {}
        for name, default, spec in flatten(defaults, prefix):
            self._specs[name] = spec
            if not self._node.has_parameter(name):
                self._declare(name, default, spec)
            try:
                values[name] = self._node.get_parameter(name).value
            except exceptions.ParameterUninitializedException as error:
                raise ConfigError(
                    f"parameter {name} has no value: give one, or none at all"
                ) from error
        return _rebuilt(defaults, prefix, values)

    def _declare(self, name: str, default: Any, spec: Spec) -> None:
        try:
            self._node.declare_parameter(name, default, _descriptor(default, spec))
        except exceptions.InvalidParameterTypeException as error:
            raise ConfigError(
                f"parameter {name} must be of type {type(default).__name__}, for example "
                f"{default!r} ({error}). {spec.text}"
            ) from error
        except exceptions.InvalidParameterValueException as error:
            low, high = spec.bounds or (None, None)
            hint = f"use a value from {low:g} to {high:g} ({error})" if spec.bounds else error
            raise ConfigError(f"parameter {name}: {hint}. {spec.text}") from error

    def unknown(self) -> list[str]:
        """One sentence for each parameter that was given and that nobody declared."""
        given: Sequence[str] = list(getattr(self._node, "_parameter_overrides", ()))
        sentences = []
        for name in given:
            if name in self._specs or name.startswith(_OTHERS) or self._node.has_parameter(name):
                continue
            near = difflib.get_close_matches(name, self._specs, n=1)
            hint = f": did you mean {near[0]}?" if near else ", it is ignored"
            sentences.append(f"there is no parameter {name}{hint}")
        return sentences

    def _check(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        for parameter in parameters:
            spec = self._specs.get(parameter.name)
            if spec is None:
                continue
            reason = spec.problem(parameter.value)
            if self.locked and not spec.live and self._node.has_parameter(parameter.name):
                reason = "it is read when the node is configured: clean up, set, configure"
            if reason:
                return SetParametersResult(
                    successful=False, reason=f"{parameter.name} cannot be set: {reason}"
                )
        self.revision += 1
        return SetParametersResult(successful=True)


def _rebuilt(tree: P, prefix: str, values: dict[str, Any]) -> P:
    changed = {}
    for entry in fields(tree):  # type: ignore[arg-type]
        value, name = getattr(tree, entry.name), prefix + entry.name
        changed[entry.name] = (
            _rebuilt(value, f"{name}.", values) if is_dataclass(value) else values[name]
        )
    return type(tree)(**changed)
