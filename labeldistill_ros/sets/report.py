# SPDX-License-Identifier: Apache-2.0
"""The record of a set: what became of it, and how long that took."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Outcome = Literal["processed", "dropped", "incomplete", "refused", "idle", "failed"]
"""Boxes were published; a newer set came before it was its turn; cameras were missing; images,
calibrations or transforms were unusable; nobody listens; the detector or the node itself raised an
error."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True)
class SetReport:
    """The record of one set, written when it came to its end."""

    stamp_ns: int
    """Time of the set, in nanoseconds since the epoch."""
    outcome: Outcome
    """What became of the set; see `Outcome`."""
    cameras: tuple[str, ...]
    """Cameras whose images were used, or had come."""
    missing: tuple[str, ...]
    """Cameras whose images were not used."""
    cause: str = ""
    """Why the set was not processed, in a word or two; empty when it was."""
    spread_s: float = 0.0
    """Time between its first and last exposure."""
    age_s: float = math.nan
    """Time from its stamp until its end, by the node's clock; NaN where that does not run."""
    history_valid: int = 0
    """How many past frames the network had."""
    pose: str = ""
    """`unknown` where the set was processed without the vehicle's pose."""
    boxes: int = 0
    """How many boxes were published."""
    unusable: int = 0
    """How many boxes were left out because they are not finite or have no size."""
    unforeseen: bool = False
    """Whether an error of the program itself ended it, not one of torch or CUDA."""
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    """Wall-clock time of each stage; `total` from its last image's arrival to its boxes."""


class SetTally:
    """Counts sets by what became of them."""

    def __init__(self) -> None:
        """Begin with every count at zero."""
        self.counts: Counter[str] = Counter()
        """`seen` for all sets, each outcome, `<outcome>/<cause>`, `boxes_unusable`, and
        `unforeseen` for the sets that an error of the program itself ended."""

    def add(self, report: SetReport) -> None:
        """Count a set that came to its end."""
        self.counts["seen"] += 1
        self.counts[report.outcome] += 1
        self.counts["unforeseen"] += report.unforeseen
        self.counts["boxes_unusable"] += report.unusable
        if report.cause:
            # With its cause as well: "refused" alone does not say whether cameras or transforms are
            # at fault.
            self.counts[f"{report.outcome}/{report.cause}"] += 1

    @property
    def totals(self) -> dict[str, int]:
        """Sets so far: `seen`, each outcome, and of those that failed the `unforeseen`."""
        return {key: self.counts[key] for key in ("seen", *OUTCOMES, "unforeseen")}
