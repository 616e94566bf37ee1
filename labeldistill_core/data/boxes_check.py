# SPDX-License-Identifier: Apache-2.0
"""Whether a training has anything to learn."""

from __future__ import annotations

from collections.abc import Sequence

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import ConfigError


def refuse_without_boxes(tables: NuScenesTables, tokens: Sequence[str]) -> None:
    """Refuse samples of which no box counts, see `GroundTruth.touched`.

    Args:
        tables: of the data root.
        tokens: of the samples.

    Raises:
        ConfigError: nothing could be learned from them; says why and what helps.
    """
    # Ends at the first box, so that all samples are looked at only where the training ends anyway.
    if not tokens or any(tables.ground_truth(token).touched.any() for token in tokens):
        return
    root = tables.dataroot / tables.version
    if known := sum(len(tables.ground_truth(token).boxes) for token in tokens):
        raise ConfigError(
            f"{root}: none of the {known} boxes of the {len(tokens)} samples counts, since no "
            "LiDAR or radar point is in any of them (num_lidar_pts, num_radar_pts): write -1 where "
            "nobody has counted the points"
        )
    raise ConfigError(
        f"{root}: the {len(tokens)} samples have no box of the configuration's classes "
        f"({', '.join(tables.class_list.names)}): label them, choose other scenes, or name their "
        "categories in a configuration (`labeldistill config --like`)"
    )
