# SPDX-License-Identifier: Apache-2.0
"""Official splits of nuScenes, as far as their scenes are there."""

from __future__ import annotations

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import DataError

_SPLITS = {"v1.0-mini": ("mini_train", "mini_val"), "v1.0-trainval": ("train", "val")}


def split_scenes(tables: NuScenesTables, split: str) -> list[str]:
    """Names of a split's scenes in a data root.

    Args:
        tables: of the data root.
        split: "train" or "val", for the mini version too, or "all".

    Raises:
        DataError: the version has no such split, or none of its scenes is there.
    """
    if split == "all":
        return list(tables.scene_names)
    from nuscenes.utils.splits import create_splits_scenes

    if tables.version not in _SPLITS or split not in ("train", "val"):
        raise DataError(
            f"version {tables.version!r} has no split {split!r}: train, val and all are known for "
            f"{', '.join(_SPLITS)}"
        )
    official = create_splits_scenes()[_SPLITS[tables.version][split == "val"]]
    scenes = [name for name in official if name in set(tables.scene_names)]
    if not scenes:
        raise DataError(
            f"none of the {len(official)} scenes of split {split!r} is in {tables.dataroot}; "
            f"it has {', '.join(tables.scene_names[:10])}"
        )
    return scenes
