# SPDX-License-Identifier: Apache-2.0
"""Charts as SVG, readable on light and on dark."""

from __future__ import annotations

import io
import math
import textwrap
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
_RUNS = (_BLUE, _ORANGE, "#2f9e6e", "#a563c9", "#c8553d", "#7d8a99")
"""Of the runs, in their order."""
_LETTERS = 8.5
"""Points."""
_GROUP = 0.8
"""Width of all bars of a group, of the way to the next."""


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
    _legend(figure)  # outside, since the curves may be anywhere
    return _svg(figure)


def recall_by_distance(breakdowns: Mapping[str, Breakdown]) -> Markup:
    """Share of true boxes that were found, by distance, of one run or several."""
    figure, axes = _figure()
    groups = [group.name for group in next(iter(breakdowns.values())).distance]
    width = _GROUP / len(breakdowns)
    for number, (name, breakdown) in enumerate(breakdowns.items()):
        at = np.arange(len(groups)) + (number - (len(breakdowns) - 1) / 2) * width
        recall = [group.recall for group in breakdown.distance]
        axes.bar(at, recall, 0.9 * width, label=_label(name), color=_RUNS[number % len(_RUNS)])
    axes.set_xticks(range(len(groups)), groups, parse_math=False)
    axes.set(ylim=(0, 1.02), xlabel="distance from the vehicle", ylabel="recall")
    axes.grid(visible=False, axis="x")
    if len(breakdowns) > 1:
        _legend(figure, columns=1)
    return _svg(figure)


def latencies(times_ms: Mapping[str, Sequence[float]]) -> Markup:
    """Histogram of milliseconds, of one run or several."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

    figure, axes = _figure()
    every = np.array([time for times in times_ms.values() for time in times])
    most = 1.1 * max(float(every.max()), 1.0)
    least = 0.9 * float(every[every > 0].min(initial=most))
    bins = np.geomspace(min(least, most / 3), most, 40).tolist()
    for number, (name, times) in enumerate(times_ms.items()):
        p95 = float(np.percentile(times, 95))
        kind: Any = "stepfilled" if len(times_ms) == 1 else "step"
        colour = _RUNS[number % len(_RUNS)]
        label = f"{_label(name)}, p95 {p95:.0f} ms"
        axes.hist(times, bins, histtype=kind, linewidth=1.6, label=label, color=colour)
    # One set that took ten times as long must not press all others into a bar.
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="ms from the last image to the boxes", ylabel="number of sets")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure, columns=1)
    return _svg(figure)


def runs_compared(metrics: Mapping[str, Metrics]) -> Markup:
    """MAP and NDS of several runs, a pair of bars for each."""
    figure, axes = _figure(height_in=1.6 + 0.55 * len(metrics))
    at, rows = np.arange(len(metrics)), list(metrics.values())
    scores = {"NDS": [row.nds for row in rows], "mAP": [row.mean_ap for row in rows]}
    for (name, values), side, colour in zip(scores.items(), (-1, 1), (_ORANGE, _BLUE), strict=True):
        bars = axes.barh(at + side * _GROUP / 4, values, _GROUP / 2.2, label=name, color=colour)
        axes.bar_label(bars, fmt="%.3f", padding=3, fontsize=_LETTERS, color=_GREY)
    # Runs are named by others; a "$" would begin a formula.
    names = [_broken(name) for name in metrics]
    axes.set_yticks(at, names, parse_math=False)
    axes.invert_yaxis()  # in the order of the table, from above
    top = max(value for row in rows for value in (row.mean_ap, row.nds) if math.isfinite(value))
    axes.set(xlim=(0, 1.2 * top or 1), xlabel="score, 0 to 1")
    axes.grid(visible=False, axis="y")
    _legend(figure)
    return _svg(figure)


def _broken(name: str) -> str:
    """A run's name in short lines, broken at its underscores where it can be."""
    lines = textwrap.wrap(name.replace("_", "_ "), 20)
    return "\n".join(line.replace("_ ", "_") for line in lines) or name


def _figure(height_in: float = 3.7) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    # As wide as a telephone's screen, so that letters have their size there, and grow elsewhere.
    figure = Figure(figsize=(4.8, height_in), layout="constrained")
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.grid(color=_GREY, alpha=0.25)
    axes.tick_params(which="both", colors=_GREY, labelsize=_LETTERS)
    axes.set_axisbelow(True)
    axes.xaxis.label.set_color(_GREY)
    axes.yaxis.label.set_color(_GREY)
    for spine in axes.spines.values():
        spine.set_color(_GREY)
    return figure, axes


def _legend(figure: Figure, columns: int = 2) -> None:
    legend = figure.legend(
        loc="outside lower center",
        fontsize=_LETTERS,
        labelcolor=_GREY,
        frameon=False,
        ncols=columns,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a run may have any name, "$" in it as well


def _label(run: str) -> str:
    """A run's name for a legend, which leaves out what begins with a low line."""
    return f" {run}" if run.startswith("_") else run


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
