# SPDX-License-Identifier: Apache-2.0
"""How far a stage is from its recording, and whether that is within tolerance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RELATIVE = 1e-4
"""Of a feature's own value."""
OF_SPREAD = 1e-4
"""Of a stage's standard deviation, for values near zero."""
BOUNDARY_SHARE = 2e-4
"""Share of whole numbers that may differ because a point lies on a cell's edge."""


@dataclass(frozen=True)
class StageResult:
    """How far one stage is from the recording."""

    stage: str
    """Group and name."""
    max_abs: float
    """Largest absolute error."""
    max_rel: float
    """Largest absolute error over the recording's largest magnitude."""
    passed: bool
    """Within tolerance."""
    note: str = ""
    """What is special."""

    def line(self) -> str:
        """One line of text."""
        verdict = "ok     " if self.passed else "FAILED "
        errors = f"abs {self.max_abs:.2e}  rel {self.max_rel:.2e}"
        return f"{verdict}  {self.stage:<58} {errors}  {self.note}".rstrip()


def features(
    stage: str, ours: ArrayLike, theirs: ArrayLike, of_spread: float = OF_SPREAD
) -> StageResult:
    """Floating point values: relative tolerance plus a share of the spread."""
    ours, theirs = _same_shape(ours, theirs)
    error = np.abs(ours - theirs)
    spread = float(theirs.std()) if theirs.size else 0.0
    allowed = RELATIVE * np.abs(theirs) + of_spread * spread + 1e-7
    passed = bool(np.isfinite(ours).all() and (error <= allowed).all())
    return _result(stage, error, theirs, passed)


def absolute(stage: str, ours: ArrayLike, theirs: ArrayLike, tolerance: float) -> StageResult:
    """Values with one absolute tolerance."""
    ours, theirs = _same_shape(ours, theirs)
    error = np.abs(ours - theirs)
    return _result(stage, error, theirs, bool((error <= tolerance).all()))


def integers(stage: str, ours: ArrayLike, theirs: ArrayLike) -> StageResult:
    """Whole numbers: equal but for a handful of points on an edge."""
    ours, theirs = _same_shape(ours, theirs)
    error = np.abs(ours - theirs)
    different = int((error > 0).sum())
    passed = different <= BOUNDARY_SHARE * error.size
    return _result(stage, error, theirs, passed, f"{different} of {error.size} differ")


def _same_shape(
    ours: ArrayLike, theirs: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    one, two = (np.asarray(x, dtype=np.float64) for x in (ours, theirs))
    if one.shape != two.shape:
        # not a number fails every stage, also one that was recorded as empty
        return np.array([np.nan]), np.zeros(1)
    return one, two


def _result(
    stage: str,
    error: NDArray[np.float64],
    theirs: NDArray[np.float64],
    passed: bool,
    note: str = "",
) -> StageResult:
    worst = float(error.max()) if error.size else 0.0
    scale = float(np.abs(theirs).max()) if theirs.size else 0.0
    if np.isnan(worst):
        return StageResult(stage, worst, worst, False, "another shape, or not finite")
    return StageResult(stage, worst, worst / scale if scale else worst, passed, note)
