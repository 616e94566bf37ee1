# SPDX-License-Identifier: Apache-2.0
"""Complaints about several cameras that say the same, as one sentence."""

from __future__ import annotations

from collections.abc import Mapping

from labeldistill_ros.ros_names import ros_name

_ANY = "<camera>"


def together(texts: Mapping[str, str]) -> list[str]:
    """One sentence for all cameras of which the same is true.

    Args:
        texts: what is wrong by camera, beginning with its name and a colon. Two texts are the same
            when they differ in nothing but the camera's name, as in topics and frames.

    Returns:
        The sentences, in the order of their first camera; where several cameras share one, their
        names stand before it, and `<camera>` stands for each of them inside it.
    """
    groups: dict[str, list[str]] = {}
    for camera, text in texts.items():
        common = text.removeprefix(f"{camera}: ")
        common = common.replace(camera, _ANY).replace(ros_name(camera), _ANY)
        groups.setdefault(common, []).append(camera)
    return [
        texts[cameras[0]] if len(cameras) == 1 else f"{', '.join(cameras)}: {common}"
        for common, cameras in groups.items()
    ]
