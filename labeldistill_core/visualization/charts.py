# SPDX-License-Identifier: Apache-2.0
"""Charts as SVG, readable on light and on dark."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from labeldistill_core.evaluation.breakdown import Breakdown
from labeldistill_core.evaluation.metrics import Metrics
from labeldistill_core.visualization.colours import class_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GREY = "#7d8a99"
"""Of lines and letters: legible on both grounds."""
_BLUE, _ORANGE = "#2f81d6", "#e8862e"


def precision_recall(metrics: Metrics, distance_m: float = 2.0) -> Markup:
    """Precision over recall of each class that has true boxes, matched within a distance."""
    figure, axes = _figure()
    for name, curves in metrics.precision.items():
        curve = curves.get(distance_m)
        if metrics.truth_boxes[name] and curve:
            colour = tuple(0.85 * c / 255 for c in class_colour(name))
            label = f"{name.replace('_', ' ')} {metrics.class_ap_at_m[name][distance_m]:.2f}"
            axes.plot(np.linspace(0, 1, len(curve)), curve, color=colour, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    _legend(figure, columns=3)  # outside, since the curves may be anywhere
    return _svg(figure)


def recall_by_distance(breakdowns: Mapping[str, Breakdown]) -> Markup:
    """Share of true boxes that were found, by distance, of one run or several."""
    figure, axes = _figure()
    for name, breakdown in breakdowns.items():
        groups = breakdown.distance
        axes.plot([g.name for g in groups], [g.recall for g in groups], "o-", label=name)
    # A little over 1, so that a line at full recall is not cut in half.
    axes.set(ylim=(0, 1.02), xlabel="distance from the vehicle", ylabel="recall")
    if len(breakdowns) > 1:
        _legend(figure)
    return _svg(figure)


def latencies(times_ms: Mapping[str, Sequence[float]]) -> Markup:
    """Histogram of milliseconds, of one run or several."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure()
    every = [time for times in times_ms.values() for time in times]
    bins = np.linspace(0, max(every) * 1.05, 40).tolist()
    for name, times in times_ms.items():
        p95 = float(np.percentile(times, 95))
        kind: Any = "stepfilled" if len(times_ms) == 1 else "step"
        axes.hist(times, bins, histtype=kind, linewidth=1.6, label=f"{name}, p95 {p95:.0f} ms")
    axes.set(xlabel="ms from the last image to the boxes", ylabel="sets")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure)
    return _svg(figure)


def runs_compared(metrics: Mapping[str, Metrics]) -> Markup:
    """MAP and NDS of several runs."""
    figure, axes = _figure()
    at = np.arange(len(metrics))
    rows = list(metrics.values())
    axes.plot(at, [row.mean_ap for row in rows], "o-", color=_BLUE, label="mAP")
    axes.plot(at, [row.nds for row in rows], "s-", color=_ORANGE, label="NDS")
    # Runs are named by others; a "$" would begin a formula.
    axes.set_xticks(at, list(metrics), rotation=20, ha="right", parse_math=False)
    top = max(value for row in rows for value in (row.mean_ap, row.nds) if math.isfinite(value))
    axes.set_ylim(0, 1.15 * top or 1)
    _legend(figure)
    return _svg(figure)


def _figure() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.4), layout="constrained")
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.grid(color=_GREY, alpha=0.25)
    axes.tick_params(colors=_GREY)
    axes.xaxis.label.set_color(_GREY)
    axes.yaxis.label.set_color(_GREY)
    for spine in axes.spines.values():
        spine.set_color(_GREY)
    return figure, axes


def _legend(figure: Figure, columns: int = 2) -> None:
    legend = figure.legend(
        loc="outside lower center", fontsize=9, labelcolor=_GREY, frameon=False, ncols=columns
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a run may have any name, "$" in it as well


def _svg(figure: Figure) -> Markup:
    import matplotlib as mpl

    buffer = io.StringIO()
    # The same figures give the same bytes: ids without a salt are random, and a date is the
    # present.
    with mpl.rc_context({"svg.hashsalt": "chart"}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])  # matplotlib escapes what it writes
