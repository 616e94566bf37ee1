# SPDX-License-Identifier: Apache-2.0
"""What makes a run what it is, and whether a later call means the same run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from labeldistill_core.classes import NUSCENES
from labeldistill_core.names import plain_text

_SAMPLES = "samples_sha256"
_ABOUT_SAMPLES = {
    "boxes_sha256": "the samples' boxes",
    "sensors_sha256": "calibrations, poses, times or names of the samples' images and scans, or "
    "which of the files are there,",
    "poses_sha256": "poses at the samples' images, or calibrations, poses, times or names of their "
    "scans,",
    "sweeps_sha256": "calibrations, poses, times or names of the scans between samples, or which "
    "of the files are there,",
}
_MEANT = {
    _SAMPLES: "the samples",
    "data_sha256": "the samples or what the tables say of them",
    **_ABOUT_SAMPLES,
}
"""What a hash stands for, whose numbers tell nobody anything."""
_ADDED = (*_ABOUT_SAMPLES, "teacher_norm")
"""Parts that not all versions tell."""


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What a run and a later call do not have in common, a sentence each.

    Args:
        before: identity of the run, as JSON.
        now: identity of the call.
    """
    both = before.keys() & now.keys()
    left_out = {key for key in _ADDED if key not in both}
    if before.get(_SAMPLES) != now.get(_SAMPLES):
        left_out |= _ABOUT_SAMPLES.keys()  # of others, all of it is another
    try:
        then, today = (
            {key: value for key, value in identity.items() if key not in left_out}
            for identity in (_with_classes(before), now)
        )
        return list(_differences(then, today))
    except RecursionError:
        return ["it is nested deeper than that of any run"]


def _with_classes(before: Any) -> Any:
    """A run's identity as today's version writes it: heads without classes learnt nuScenes'."""
    if not isinstance(before, dict):
        return before
    whole = {key: _with_classes(value) for key, value in before.items()}
    if "tasks" in whole:
        whole.setdefault("classes", json.loads(json.dumps([*map(asdict, NUSCENES.members)])))
    return whole


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))
    elif before != now:
        if name in _MEANT:
            yield f"{_MEANT[name]} are others"
        else:
            yield f"{name} was {plain_text(str(before))}, is {plain_text(str(now))}"
