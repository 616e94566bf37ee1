# SPDX-License-Identifier: Apache-2.0
"""Looks for cameras of a data root of whose images the network does not see the horizon."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from labeldistill_core.config import ImageConfig
from labeldistill_core.data.crop import lost_horizons
from labeldistill_core.data.nuscenes import NuScenesTables

_LOG = logging.getLogger(__name__)


def warn_of_lost_horizons(
    tables: NuScenesTables, tokens: Sequence[str], cameras: Sequence[str], image: ImageConfig
) -> None:
    """Log each camera of whose images the network does not see the horizon, once.

    Args:
        tables: of the data root.
        tokens: of samples with images; the first one of each scene is looked at.
        cameras: those of the network.
        image: what the network takes.
    """
    told: set[str] = set()
    for token in {tables.scene_of(token): token for token in reversed(tokens)}.values():
        records = tables.cameras(token)
        left = [records[name].calibration for name in cameras if name not in told]
        for name, text in lost_horizons(left, image).items():
            told.add(name)
            _LOG.warning("%s", text)
