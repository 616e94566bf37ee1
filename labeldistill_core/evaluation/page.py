# SPDX-License-Identifier: Apache-2.0
"""A folder with pictures and one HTML page to look at them; it needs no server and no network."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from PIL import Image

from labeldistill_core.classes import CLASSES
from labeldistill_core.evaluation.metrics import Metrics


@dataclass(frozen=True, eq=False)
class PageFrame:
    """What the page shows of one set of images."""

    caption: str
    """Such as the scene and the time."""
    cameras: Image.Image
    """See `pictures.camera_mosaic`."""
    top_view: Image.Image
    """See `pictures.birds_eye_view`."""


@dataclass(frozen=True)
class PageTable:
    """A table with a title."""

    title: str
    """Above it."""
    header: tuple[str, ...]
    """Names of the columns; the first column holds words, the others numbers."""
    rows: Sequence[tuple[str, ...]]
    """As many cells as the header has."""


def write_page(
    folder: Path,
    title: str,
    summary: Sequence[tuple[str, str]],
    frames: Iterable[PageFrame],
    tables: Sequence[PageTable] = (),
) -> Path:
    """Write `index.html` and the pictures beside it.

    Args:
        folder: made if absent; pictures and page of an earlier call are replaced.
        title: of the page.
        summary: name and value of the figures that are shown large, such as mAP and latency.
        frames: in the order in which they are stepped through; read one by one, so that a
            generator keeps one at a time in memory.
        tables: further figures.

    Returns:
        Path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("frame_*_cameras.jpg"), *folder.glob("frame_*_top.png")]:
        old.unlink()
    figures = [_write_frame(folder, index, frame) for index, frame in enumerate(frames)]
    page = Template(files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    path = folder / "index.html"
    path.write_text(
        page.substitute(
            title=html.escape(title),
            summary="\n".join(
                f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
                for name, value in summary
            ),
            frames="\n".join(figures),
            tables="\n".join(_table(table) for table in tables),
        ),
        encoding="utf-8",
    )
    return path


def metric_summary(metrics: Metrics) -> list[tuple[str, str]]:
    """mAP, NDS and the number of samples, for `write_page`."""
    return [
        ("mAP", _number(metrics.mean_ap)),
        ("NDS", _number(metrics.nds)),
        ("samples", str(metrics.samples)),
    ]


def metric_tables(metrics: Metrics) -> list[PageTable]:
    """Average precision by class and the mean errors, for `write_page`."""
    distances = list(next(iter(metrics.class_ap_at_m.values())))
    by_class = [
        (
            name.replace("_", " "),
            str(metrics.truth_boxes[name]),
            str(metrics.predicted_boxes[name]),
            _number(metrics.class_ap[name]),
            *(_number(metrics.class_ap_at_m[name][d]) for d in distances),
        )
        for name in CLASSES
    ]
    header = ("class", "truth", "boxes", "AP", *(f"AP at {d:g} m" for d in distances))
    errors = [(name.replace("_", " "), _number(v)) for name, v in metrics.tp_errors.items()]
    return [
        PageTable("Average precision", header, by_class),
        PageTable("Mean errors of matched boxes", ("error", "mean"), errors),
    ]


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _write_frame(folder: Path, index: int, frame: PageFrame) -> str:
    cameras, top = f"frame_{index:04d}_cameras.jpg", f"frame_{index:04d}_top.png"
    frame.cameras.save(folder / cameras, quality=88)
    frame.top_view.save(folder / top, optimize=True)
    caption = html.escape(frame.caption)
    return (
        f'<figure><figcaption>{caption}</figcaption><div class="pictures">'
        f'<a href="{cameras}"><img src="{cameras}" alt="Cameras, {caption}" loading="lazy"></a>'
        f'<a href="{top}"><img src="{top}" alt="From above, {caption}" loading="lazy"></a>'
        "</div></figure>"
    )


def _table(table: PageTable) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in table.rows
    )
    return (
        f"<section><h2>{html.escape(table.title)}</h2><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></section>"
    )
