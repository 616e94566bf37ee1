# SPDX-License-Identifier: Apache-2.0
"""How far a stage is from its recording, and whether that is more than rounding.

Both our code and the recorded one compute in float32. How far rounding moves a stage is measured:
the same code runs in float64 as well, and the largest distance of its two results is the *rounding*
of the stage. A value may differ from the recording by

    RELATIVE |recorded| + OF_SPREAD spread + min(MULTIPLE rounding, CAP spread)

where the spread is the standard deviation of the recorded values. The first two terms are all that
is allowed where nothing rounds. Where float64 moves a value by more than `DECISION` of the spread,
it is no rounding but a decision that falls otherwise, such as a point on a cell's edge; such a
stage gets the first two terms alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

RELATIVE = 1e-4
"""Share of a recorded value."""
OF_SPREAD = 1e-4
"""Share of a stage's standard deviation, for values near zero."""
MULTIPLE = 4.0
"""Two float32 codes round apart: twice the rounding of one, with a margin of two."""
CAP = 5e-3
"""A fault of one per cent of the spread fails, whatever rounding does."""
DECISION = 1e-2
"""Share of the spread beyond which a change is no rounding."""
BOUNDARY_SHARE = 2e-4
"""Share of whole numbers that may differ because a point lies on a cell's edge."""
TWICE_ROUNDED_SHARE = 2e-5
"""Share of an image's values that may be off by twice the tolerance. A resized image is rounded
between its two passes and after them; where both fall on halves, which happens along the straight
edges of drawn images, torch's 16-bit weights and Pillow's 22-bit ones may end two levels apart."""
_UNLIKE = "another shape, or not finite"


@dataclass(frozen=True)
class StageResult:
    """How far one stage is from the recording."""

    stage: str
    """Group and name of the stage."""
    max_abs: float
    """Largest absolute error."""
    max_rel: float
    """Largest absolute error over the recording's largest magnitude."""
    passed: bool
    """Whether the stage is within tolerance."""
    note: str = ""
    """What is special about this stage."""

    def line(self) -> str:
        """One line of text."""
        verdict = "ok     " if self.passed else "FAILED "
        errors = f"abs {self.max_abs:.2e}  rel {self.max_rel:.2e}"
        return f"{verdict}  {self.stage:<58} {errors}  {self.note}".rstrip()


@dataclass(frozen=True, eq=False)
class StageComparison:
    """What we compute for a stage beside what was recorded; not judged yet."""

    stage: str
    """Group and name of the stage."""
    ours: NDArray[np.float64]
    """What we compute."""
    theirs: NDArray[np.float64]
    """What was recorded."""
    kind: Literal["rounded", "fixed", "pixels", "whole"] = "rounded"
    """Values that round, values with a tolerance of their own, those of a resized image, or whole
    numbers."""
    tolerance: float = 0.0
    """Largest absolute error of values with a tolerance of their own."""
    note: str = ""
    """What is special about this stage."""
    noise: float = 0.0
    """How far perturbed runs moved the values, where decisions make rounding jump: gradients."""

    def judge(self, exact: NDArray[np.float64] | None = None) -> StageResult:
        """Whether the stage is as recorded.

        Args:
            exact: what we compute in float64; None counts as no rounding.
        """
        if self.ours.shape != self.theirs.shape:
            # not a number fails every stage, also one that was recorded as empty
            return StageResult(self.stage, np.nan, np.nan, False, _UNLIKE)
        error = np.abs(self.ours - self.theirs)
        worst = float(error.max()) if error.size else 0.0
        scale = float(np.abs(self.theirs).max()) if self.theirs.size else 0.0
        relative = worst / scale if scale else worst
        if np.isnan(worst):
            return StageResult(self.stage, worst, worst, False, _UNLIKE)
        if self.kind == "whole":
            different = int((error > 0).sum())
            passed = different <= BOUNDARY_SHARE * error.size
            note = self.note or f"{different} of {error.size} differ"
            return StageResult(self.stage, worst, relative, passed, note)
        allowed, note = self._allowed(exact, scale)
        passed = bool(np.isfinite(self.ours).all() and (error <= allowed).all())
        if self.kind == "pixels" and not passed:
            beyond = int((error > allowed).sum())
            passed = worst <= 2 * self.tolerance and beyond <= TWICE_ROUNDED_SHARE * error.size
            note = note or f"{beyond} of {error.size} are two grey levels apart"
        return StageResult(self.stage, worst, relative, passed, note)

    def _allowed(
        self, exact: NDArray[np.float64] | None, scale: float
    ) -> tuple[NDArray[np.float64], str]:
        """Largest error of each value, and a note."""
        if self.kind in ("fixed", "pixels"):
            return np.array(self.tolerance), self.note
        rounding = 0.0
        if exact is not None and exact.shape == self.ours.shape and exact.size:
            rounding = float(np.abs(self.ours - exact).max())
        if self.noise:
            moved = max(rounding, self.noise)
            note = f"rounding alone moves it by {moved:.1e}"
            return np.array(RELATIVE * scale + MULTIPLE * moved), note
        spread = float(self.theirs.std()) if self.theirs.size > 1 else scale
        # So far nothing rounds: a comparison fell the other way, and float64 says nothing about it.
        if rounding > DECISION * spread:
            rounding = 0.0
        base = RELATIVE * np.abs(self.theirs) + (OF_SPREAD * spread if self.theirs.size > 1 else 0)
        return base + min(MULTIPLE * rounding, CAP * spread) + 1e-7, self.note


def features(stage: str, ours: ArrayLike, theirs: ArrayLike) -> StageComparison:
    """Floating point values that round."""
    return StageComparison(stage, _array(ours), _array(theirs))


def scalar(stage: str, ours: Tensor, theirs: Any) -> StageComparison:
    """One number that rounds, such as a loss."""
    return StageComparison(stage, _array(ours.detach().reshape(1)), _array(theirs).reshape(1))


def absolute(stage: str, ours: ArrayLike, theirs: ArrayLike, tolerance: float) -> StageComparison:
    """Values with one absolute tolerance."""
    return StageComparison(stage, _array(ours), _array(theirs), "fixed", tolerance)


def pixels(stage: str, ours: ArrayLike, theirs: ArrayLike, grey_level: float) -> StageComparison:
    """A resized image: one grey level, and two for a few values, see `TWICE_ROUNDED_SHARE`.

    Args:
        stage: group and name.
        ours: what we compute.
        theirs: what was recorded.
        grey_level: in the unit of the values.
    """
    # a part in ten thousand is what float32 loses of a level when images are normalized
    return StageComparison(stage, _array(ours), _array(theirs), "pixels", 1.0001 * grey_level)


def integers(stage: str, ours: ArrayLike, theirs: ArrayLike) -> StageComparison:
    """Whole numbers: equal but for a handful of points on an edge."""
    return StageComparison(stage, _array(ours), _array(theirs), "whole")


def gradient(stage: str, runs: list[Tensor], theirs: ArrayLike) -> StageComparison:
    """The first run's values; the others, if there are any, say how far perturbations move them."""
    ours, *others = (_array(run) for run in runs)
    noise = max((float(np.abs(run - ours).max()) for run in others), default=0.0)
    return StageComparison(stage, ours, _array(theirs), noise=noise)


def _array(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)


class _Float64Mode(TorchFunctionMode):
    """What asks for float32 gets float64."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch."""
        kwargs = dict(kwargs or {})
        # Networks ask for float32 where autocast must not reach, which would undo the default type.
        if kwargs.get("dtype") is torch.float32:
            kwargs["dtype"] = torch.float64
        args = tuple(torch.float64 if arg is torch.float32 else arg for arg in args)
        return (Tensor.double if func is Tensor.float else func)(*args, **kwargs)


@contextmanager
def float64() -> Iterator[None]:
    """Networks are built and computed in float64, also where they ask for float32 themselves."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Float64Mode():
            yield
    finally:
        torch.set_default_dtype(before)
