# SPDX-License-Identifier: Apache-2.0
"""The ten nuScenes detection classes, their grouping into six head tasks, and the category map."""

from __future__ import annotations

from collections.abc import Sequence

from labeldistill_core.errors import ConfigError

CLASSES: tuple[str, ...] = (
    "car",
    "truck",
    "construction_vehicle",
    "bus",
    "trailer",
    "barrier",
    "motorcycle",
    "bicycle",
    "pedestrian",
    "traffic_cone",
)
"""Class names in the order of their global ids; a label is an index into this tuple."""

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
"""Classes that share one head. Flattened, the tasks give `CLASSES` again."""

# As `category_to_detection_name` of the devkit has it; here, since importing the devkit takes
# seconds.
CATEGORY_TO_CLASS: dict[str, str] = {
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
    "movable_object.barrier": "barrier",
    "movable_object.trafficcone": "traffic_cone",
    "vehicle.bicycle": "bicycle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.car": "car",
    "vehicle.construction": "construction_vehicle",
    "vehicle.motorcycle": "motorcycle",
    "vehicle.trailer": "trailer",
    "vehicle.truck": "truck",
}
"""nuScenes category to detection class; a category that is absent is not evaluated."""

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
        "static_object.bicycle_rack",
        "vehicle.ego",
        "vehicle.emergency.ambulance",
        "vehicle.emergency.police",
    }
)
"""The other nuScenes categories, those of lidarseg and panoptic included, which belong to no
detection class."""


def positions_among(names: Sequence[str]) -> list[int]:
    """Where each of `CLASSES` stands among the classes of a task or a network.

    Ground truth is labelled by `CLASSES`; a network may have fewer classes, in another order.

    Args:
        names: classes of a task or a network.

    Returns:
        For each of `CLASSES` its index among `names`, or -1 where it is none of them.

    Raises:
        ConfigError: a name is none of `CLASSES`, so that no ground truth ever has it.
    """
    if unknown := [name for name in names if name not in CLASSES]:
        raise ConfigError(
            f"head.tasks names {', '.join(unknown)}, of which there is no ground truth: use "
            f"{', '.join(CLASSES)}"
        )
    return [names.index(name) if name in names else -1 for name in CLASSES]
