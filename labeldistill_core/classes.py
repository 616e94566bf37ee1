# SPDX-License-Identifier: Apache-2.0
"""The ten nuScenes detection classes, their grouping into six head tasks, and the category map."""

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

TASKS: tuple[tuple[str, ...], ...] = (
    ("car",),
    ("truck", "construction_vehicle"),
    ("bus", "trailer"),
    ("barrier",),
    ("motorcycle", "bicycle"),
    ("pedestrian", "traffic_cone"),
)
"""Classes that share one head. Flattened, the tasks give `CLASSES` again."""

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
