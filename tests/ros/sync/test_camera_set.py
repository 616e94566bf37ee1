# SPDX-License-Identifier: Apache-2.0
"""Options of the synchronizer that cannot be."""

from __future__ import annotations

import pytest

from labeldistill_core.cameras import CAMERAS
from labeldistill_ros.sync.camera_set import SyncOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"anchor": "CAM_TOP"}, "'CAM_TOP' is none of the cameras"),
        ({"offsets_s": {"TOP": 0.1}}, "'TOP' is none of the cameras"),
        ({"min_cameras": 7}, "use 1 to 6"),
        ({"tolerance_s": 0.0}, "must be positive"),
        ({"cameras": ("A", "A"), "anchor": "A"}, "distinct names"),
    ],
)
def test_impossible_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyncOptions(**{"cameras": CAMERAS, "anchor": "CAM_FRONT", **options})  # type: ignore[arg-type]
