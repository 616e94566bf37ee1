# SPDX-License-Identifier: Apache-2.0
"""The degradation table and its picture, in `docs/robustness.md`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from labeldistill_core.errors import ConfigError
from labeldistill_core.files import refuse_unwritable, whole_file, write_whole
from labeldistill_ros.robustness.degradation import Degradation

BEGIN = "<!-- table: written by labeldistill robustness -->"
END = "<!-- end of table -->"


def markdown(rows: Sequence[Degradation]) -> str:
    """The rows beside the loss against the first."""
    lines = ["| fault | mAP | NDS | change of mAP | sets / key frames |", "|---|---|---|---|---|"]
    first = rows[0]
    for row in rows:
        change = "–"  # of nothing, or of what is no number
        if first.mean_ap > 0 and math.isfinite(row.mean_ap):
            change = f"{(row.mean_ap - first.mean_ap) / first.mean_ap:+.0%}"
        lines.append(
            f"| {row.fault} | {row.mean_ap:.3f} | {row.nds:.3f} | {change} | "
            f"{row.sets} / {row.samples} |"
        )
    return "\n".join(lines) + "\n"


def refuse_page(page: Path) -> None:
    """See that the table can be put into a page later.

    Raises:
        ConfigError: the mark at its end is missing, so that nobody knows how far it goes.
        OSError: the page cannot be read, or not be written.
    """
    refuse_unwritable(page)
    _parts(page)


def _parts(page: Path) -> tuple[str, str]:
    """What stands before and behind the table."""
    text = page.read_text() if page.exists() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and not end:
        raise ConfigError(
            f"{page} has {BEGIN!r}, and no {END!r} behind it: add that where the table ends"
        )
    return before, after


def write_page(page: Path, rows: Sequence[Degradation]) -> None:
    """Put the table between its marks; a page without them gets both at its end.

    Raises:
        ConfigError: the mark at its end is missing.
    """
    before, after = _parts(page)
    if not after:  # a new table
        before += "\n" * (bool(before) and not before.endswith("\n"))
        after = "\n"
    write_whole(page, f"{before}{BEGIN}\n\n{markdown(rows)}\n{END}{after}".encode())


def write_plot(path: Path, rows: Sequence[Degradation]) -> None:
    """Bars of mAP and NDS as SVG, the same bytes for the same rows."""
    import matplotlib

    # No display is needed, and the salt makes the ids within the SVG the same at every run, so that
    # the picture changes only when the figures do.
    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "robustness"
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.36 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    at = range(len(rows))
    axes.barh([y - 0.2 for y in at], [row.mean_ap for row in rows], 0.38, label="mAP")
    axes.barh([y + 0.2 for y in at], [row.nds for row in rows], 0.38, label="NDS")
    axes.axvline(rows[0].mean_ap, color="C0", linewidth=0.8, linestyle=":")
    axes.axvline(rows[0].nds, color="C1", linewidth=0.8, linestyle=":")
    axes.set_yticks(list(at), [row.fault for row in rows])
    # Bars are drawn from below; the table's first row belongs on top.
    axes.invert_yaxis()
    axes.legend(loc="lower right")
    with whole_file(path) as part:
        figure.savefig(part, format="svg", metadata={"Date": None})
