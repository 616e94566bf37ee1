# SPDX-License-Identifier: Apache-2.0
"""Classes of objects: what they are called, which boxes are theirs, how far they are scored.

nuScenes' ten are the default of every configuration; another list takes their place throughout.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from labeldistill_core.errors import ConfigError

_MAX_CLASSES = 1000


@dataclass(frozen=True)
class ObjectClass:
    """A class of objects, as data sets and metrics know it."""

    name: str
    """What results, messages and pictures call it."""
    categories: tuple[str, ...]
    """Categories of the data set whose boxes are of this class, such as `vehicle.car`."""
    range_m: float
    """Distance from the vehicle up to which its boxes are scored, in metres."""

    def __post_init__(self) -> None:
        """Check the name and the range."""
        # Names become parts of parameters and lines of tables.
        if not re.fullmatch(r"[\w-]+", self.name):
            raise ConfigError(
                f"classes: the name {self.name!r} must be of letters, digits, - and _ alone"
            )
        if not 0 < self.range_m < math.inf:
            raise ConfigError(f"classes: range_m of {self.name} is {self.range_m}: use metres > 0")


@dataclass(frozen=True)
class ClassList:
    """Classes in the order of the labels of ground truth: a label is an index into them."""

    members: tuple[ObjectClass, ...]
    """The classes."""

    def __post_init__(self) -> None:
        """Check that each box is of one class at most."""
        if not 0 < len(self.members) <= _MAX_CLASSES:
            raise ConfigError(f"classes has {len(self.members)}: use 1 to {_MAX_CLASSES}")
        for what, values in (
            ("name", self.names),
            ("category", [c for one in self.members for c in one.categories]),
        ):
            if twice := sorted({value for value in values if list(values).count(value) > 1}):
                raise ConfigError(f"classes: {what} {', '.join(twice)} is there more than once")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Their names, by label."""
        return tuple(one.name for one in self.members)

    @cached_property
    def ranges_m(self) -> tuple[float, ...]:
        """Distances up to which they are scored, by label."""
        return tuple(one.range_m for one in self.members)

    @cached_property
    def class_of(self) -> dict[str, str]:
        """Category to the name of its class; a category that is absent belongs to none."""
        return {category: one.name for one in self.members for category in one.categories}

    def positions_among(self, names: Sequence[str]) -> list[int]:
        """Where each class stands among those of a task or a network.

        Ground truth is labelled by this list; a network may have fewer classes, in another order.

        Args:
            names: classes of a task or a network.

        Returns:
            For each class of the list its index among `names`, or -1 where it is none of them.

        Raises:
            ConfigError: a name is not in the list, so that no ground truth ever has it.
        """
        if unknown := [name for name in names if name not in self.names]:
            raise ConfigError(
                f"head.tasks names {', '.join(unknown)}, of which there is no ground truth: use "
                f"{', '.join(self.names)}"
            )
        return [names.index(name) if name in names else -1 for name in self.names]


# Categories and ranges as the devkit has them; here, since importing it takes seconds.
NUSCENES = ClassList(
    (
        ObjectClass("car", ("vehicle.car",), 50.0),
        ObjectClass("truck", ("vehicle.truck",), 50.0),
        ObjectClass("construction_vehicle", ("vehicle.construction",), 50.0),
        ObjectClass("bus", ("vehicle.bus.bendy", "vehicle.bus.rigid"), 50.0),
        ObjectClass("trailer", ("vehicle.trailer",), 50.0),
        ObjectClass("barrier", ("movable_object.barrier",), 30.0),
        ObjectClass("motorcycle", ("vehicle.motorcycle",), 40.0),
        ObjectClass("bicycle", ("vehicle.bicycle",), 40.0),
        ObjectClass(
            "pedestrian",
            (
                "human.pedestrian.adult",
                "human.pedestrian.child",
                "human.pedestrian.construction_worker",
                "human.pedestrian.police_officer",
            ),
            40.0,
        ),
        ObjectClass("traffic_cone", ("movable_object.trafficcone",), 30.0),
    )
)
"""The ten classes of nuScenes' detection task, with its ranges (`detection_cvpr_2019`)."""

CLASSES: tuple[str, ...] = NUSCENES.names
"""Names of nuScenes' classes, in the order of their labels."""

# The groups of CBGS (Zhu et al. 2019): classes of like shape share a head, so that rare ones profit
# from frequent ones.
TASKS: tuple[tuple[str, ...], ...] = (
    ("car",),
    ("truck", "construction_vehicle"),
    ("bus", "trailer"),
    ("barrier",),
    ("motorcycle", "bicycle"),
    ("pedestrian", "traffic_cone"),
)
"""nuScenes' classes that share one head. Flattened, the tasks give `CLASSES` again."""

BICYCLE_RACK = "static_object.bicycle_rack"
"""Category of racks, in which cycles are not scored."""

# Named one by one, so that a category which is in neither table is told as unknown instead of going
# unlearned without a word.
UNSCORED_CATEGORIES = frozenset(
    {
        "animal",
        "flat.driveable_surface",
        "flat.other",
        "flat.sidewalk",
        "flat.terrain",
        "human.pedestrian.personal_mobility",
        "human.pedestrian.stroller",
        "human.pedestrian.wheelchair",
        "movable_object.debris",
        "movable_object.pushable_pullable",
        "noise",
        "static.manmade",
        "static.other",
        "static.vegetation",
        BICYCLE_RACK,
        "vehicle.ego",
        "vehicle.emergency.ambulance",
        "vehicle.emergency.police",
    }
)
"""The other nuScenes categories, those of lidarseg and panoptic included, which belong to no
detection class."""
