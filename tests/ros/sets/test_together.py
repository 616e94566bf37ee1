# SPDX-License-Identifier: Apache-2.0
"""One sentence for cameras of which the same is true."""

from __future__ import annotations

from labeldistill_ros.sets.together import together


def test_cameras_that_are_bad_in_the_same_way_share_a_sentence() -> None:
    cameras = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_BACK")
    same = {c: f"{c}: nobody publishes /{c.lower()}/image_raw" for c in cameras}
    assert together(same) == [
        "CAM_FRONT, CAM_FRONT_LEFT, CAM_BACK: nobody publishes /<camera>/image_raw"
    ]


def test_other_sentences_stay_as_they_are() -> None:
    texts = {"A1": "A1: dark", "B1": "B1: bright", "C1": "C1: dark"}
    assert together(texts) == ["A1, C1: dark", "B1: bright"]
    assert together({}) == []
