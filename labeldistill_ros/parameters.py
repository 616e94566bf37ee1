# SPDX-License-Identifier: Apache-2.0
"""All parameters of the node: one typed tree, which `parameter_store` declares and checks.

A field's path is the parameter's name (`sync.tolerance`). Its text, range and choices stand in its
metadata, are shown by `ros2 param describe` and head `config/detector.yaml`. No ROS in here:
the bag tools take the same tree.

Why this is not `generate_parameter_library`: that makes a module from YAML while colcon builds, so
a checkout that is installed with pip would have no parameters. It knows neither parameters for each
camera of a model that is read at run time, nor checks across fields, and its names cannot be
checked by mypy before they are generated. Here the dataclass is the only source, and
`config/detector.yaml` and the table in `docs/node.md` are made from it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar

from labeldistill_core.errors import ConfigError
from labeldistill_ros.ros_names import frame_name

P = TypeVar("P")


@dataclass(frozen=True)
class Spec:
    """What is known of one parameter beyond its type."""

    text: str
    """One or two sentences that tell a person what the parameter does."""
    bounds: tuple[float, float] | None = None
    """Smallest and largest value that is allowed; any when None."""
    choices: tuple[str, ...] = ()
    """Strings that are allowed; any when there are none."""
    live: bool = False
    """Whether the parameter can change while the node is configured."""
    farthest: float | None = None
    """Largest distance from zero of a number that may also be NaN; any when None."""

    def problem(self, value: object) -> str:
        """Why a value cannot be taken; empty when it can."""
        # Bounds are those of `check`: ROS itself refuses values outside a descriptor's range.
        if self.choices and value not in self.choices:
            return f"{value!r} is none of {', '.join(map(repr, self.choices))}"
        if self.farthest is not None and isinstance(value, float) and abs(value) > self.farthest:
            return f"{value:g} is not from {-self.farthest:g} to {self.farthest:g}"
        return ""


def _parameter(default: Any, text: str, **spec: Any) -> Any:
    return field(default=default, metadata={"spec": Spec(text, **spec)})


def _name_frames(tree: object, *fields: str) -> None:
    """Let fields hold the names of frames as tf2 has them."""
    for each in fields:
        object.__setattr__(tree, each, frame_name(getattr(tree, each)))


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
        "Largest difference of stamps in a set under `approximate_time`, seconds; above the "
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
        "Seconds of silence after which a camera counts as dead (never less than 4.5 periods).",
        bounds=(0.01, 60.0),
    )
    min_cameras: int = _parameter(
        4,
        "Fewest cameras that an incomplete set needs under `mask`; at most all but one count.",
        bounds=(1, 64),
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
        "Seconds without boxes, while images come, after which processing is an ERROR; at least "
        "2.5 periods of the cameras, and two of max_rate.",
        bounds=(0.01, 600.0),
    )


@dataclass(frozen=True)
class CameraParameters:
    """Where one camera is found; declared for every camera of the model."""

    enabled: bool = _parameter(
        True,
        "The vehicle has this camera. false: sets are complete without it.",
    )
    image_topic: str = _parameter(
        "",
        "Full name of the image topic. Empty: <camera_prefix>/<camera>/image_raw, with /compressed "
        "behind it for the compressed transport; <camera> in lower case, with _ for what is "
        "neither letter nor digit.",
    )
    info_topic: str = _parameter(
        "", "Full name of the camera_info topic. Empty: <camera_prefix>/<camera>/camera_info."
    )
    frame_id: str = _parameter(
        "", "Optical frame of the camera. Empty: that of its images' headers."
    )
    transport: Literal["", "compressed", "raw"] = _parameter(
        "",
        "Transport of this camera's images. Empty: the common one.",
        choices=("", "compressed", "raw"),
    )
    time_offset: float = _parameter(
        math.nan,
        "Seconds from the anchor's exposure to this camera's, at most half a second before or "
        "after it. NaN: learned from stamps.",
        farthest=0.5,
    )

    def __post_init__(self) -> None:
        """Take the frame as tf2 names it."""
        _name_frames(self, "frame_id")


@dataclass(frozen=True)
class ClassParameters:
    """How one class of boxes is published; declared for every class of the model."""

    score_threshold: float = _parameter(
        math.nan,
        "Lowest published score of this class; above 1 it is left out. NaN: score_threshold.",
        live=True,
    )


@dataclass(frozen=True)
class Parameters:
    """All parameters of the node but those of single cameras and classes."""

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
        "Number format of the convolutions. auto: what the device computes fastest, float16 on "
        "GPUs, bfloat16 on newer CPUs.",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    warmup_iterations: int = _parameter(
        5,
        "Steps over black images when the node is configured, so that the first real set is not "
        "late.",
        bounds=(0, 100),
    )
    autostart: bool = _parameter(True, "Configure and activate at the start, unasked.")
    camera_prefix: str = _parameter(
        "", "What all derived camera topics begin with, such as /sensing."
    )
    transport: Literal["compressed", "raw"] = _parameter(
        "compressed",
        "Image messages: compressed (JPEG, PNG) or raw.",
        choices=("compressed", "raw"),
    )
    images_rectified: bool = _parameter(
        False, "The image topics are rectified: use P and R of camera_info rather than K and D."
    )
    decode_threads: int = _parameter(
        0,
        "Threads that decode images. 0: one for each core, at most one for each camera.",
        bounds=(0, 64),
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
    max_boxes: int = _parameter(
        200, "Largest number of boxes in a message; the best are kept.", bounds=(1, 5000), live=True
    )
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

    def __post_init__(self) -> None:
        """Take frames as tf2 names them."""
        _name_frames(self, "fixed_frame", "base_frame", "output_frame")

    @property
    def period_s(self) -> float:
        """Seconds between two sets that `max_rate` lets pass; 0 where it lets all."""
        return 1 / self.max_rate if self.max_rate else 0.0


@dataclass(frozen=True)
class VehicleParameters:
    """All parameters, for a model of certain cameras and classes."""

    common: Parameters
    """All but those of single cameras and classes."""
    cameras: Mapping[str, CameraParameters]
    """Parameters of each of the model's cameras that the vehicle has, in the model's order."""
    classes: Mapping[str, ClassParameters]
    """Parameters of each class of the model, by name and in the order of its labels."""


def check(name: str, value: Any, spec: Spec) -> None:
    """See that the node would take a value, which has the parameter's type.

    Raises:
        ConfigError: it is out of range, or no choice.
    """
    if spec.bounds and not spec.bounds[0] <= value <= spec.bounds[1]:
        low, high = spec.bounds
        raise ConfigError(
            f"parameter {name} is {value!r}: use a value from {low:g} to {high:g}. {spec.text}"
        )
    if reason := spec.problem(value):
        raise ConfigError(f"parameter {name}: {reason}. {spec.text}")


def flatten(tree: object, prefix: str = "") -> Iterator[tuple[str, Any, Spec]]:
    """Name, value and specification of each parameter of a tree."""
    for entry in fields(tree):  # type: ignore[arg-type]
        value = getattr(tree, entry.name)
        if is_dataclass(value):
            yield from flatten(value, f"{prefix}{entry.name}.")
        else:
            yield prefix + entry.name, value, entry.metadata["spec"]


def with_values(tree: P, prefix: str, values: Mapping[str, Any]) -> P:
    """A tree of the same class with these values.

    Args:
        tree: of parameters.
        prefix: what the names of its parameters begin with.
        values: of all of its parameters, by name.
    """
    changed = {}
    for entry in fields(tree):  # type: ignore[arg-type]
        value, name = getattr(tree, entry.name), prefix + entry.name
        changed[entry.name] = (
            with_values(value, f"{name}.", values) if is_dataclass(value) else values[name]
        )
    return type(tree)(**changed)


def why_unknown(name: str, known: Collection[str], cameras: Sequence[str]) -> str:
    """What to say of a parameter that was given and that does not exist.

    Args:
        name: as it was given.
        known: names of all parameters.
        cameras: of the model.
    """
    group, _, rest = name.partition(".")
    camera = rest.partition(".")[0] if group == "cameras" else ""
    if camera and camera not in cameras:
        return (
            f"there is no parameter {name}: the model has no camera {camera}, its cameras are "
            f"{', '.join(cameras)}"
        )
    near = difflib.get_close_matches(name, known, n=1)
    hint = f": did you mean {near[0]}?" if near else ", it is ignored"
    return f"there is no parameter {name}{hint}"
