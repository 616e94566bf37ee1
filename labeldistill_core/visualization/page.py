# SPDX-License-Identifier: Apache-2.0
"""HTML pages to look at results with; they need no server and no network.

`write_page` leaves a folder with pictures beside the page, `write_report` a single file.
"""

from __future__ import annotations

import base64
import html
import io
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
    highlight: str = ""
    """Why a report shows it once more, by itself, such as "Worst"."""


@dataclass(frozen=True)
class PageTable:
    """A table with a title."""

    title: str
    """Above it."""
    header: tuple[str, ...]
    """Names of the columns; the first column holds words, the others numbers."""
    rows: Sequence[tuple[str, ...]]
    """As many cells as the header has."""


@dataclass(frozen=True)
class PageChart:
    """A drawing with a title."""

    title: str
    """Above it."""
    svg: str
    """See `charts`."""


_EMBEDDED_WIDTH_PX = 1500
_ERRORS = {
    "trans_err": "translation (mATE), m",
    "scale_err": "scale (mASE), 1 - IoU",
    "orient_err": "orientation (mAOE), rad",
    "vel_err": "velocity (mAVE), m/s",
    "attr_err": "attribute (mAAE), 1 - accuracy",
}


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
    path = folder / "index.html"
    path.write_text(_page(title, summary, "", figures, tables), encoding="utf-8")
    return path


def write_report(
    path: Path,
    title: str,
    summary: Sequence[tuple[str, str]],
    frames: Iterable[PageFrame],
    tables: Sequence[PageTable] = (),
    charts: Sequence[PageChart] = (),
) -> None:
    """Write one HTML file with everything inside.

    Args:
        path: of the file.
        title: of the page.
        summary: as in `write_page`.
        frames: as in `write_page`.
        tables: further figures.
        charts: shown above.
    """
    figures, special = [], []
    for frame in frames:
        cameras = _embedded(frame.cameras, _EMBEDDED_WIDTH_PX, frame.caption)
        top = _embedded(frame.top_view, _EMBEDDED_WIDTH_PX // 3, frame.caption)
        figures.append(_figure(frame.caption, cameras, top))
        if frame.highlight:
            special.append(_figure(f"{frame.highlight}: {frame.caption}", cameras, top))
    above = [
        f"<section><h2>{html.escape(chart.title)}</h2>{chart.svg}</section>" for chart in charts
    ]
    parts = [f'<div class="charts">{"".join(above)}</div>'] if above else []
    parts += special
    path.parent.mkdir(parents=True, exist_ok=True)
    text = _page(title, summary, "\n".join(parts), figures, tables)
    path.write_text(text, encoding="utf-8")


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
    errors = [(_ERRORS[name], _number(value)) for name, value in metrics.tp_errors.items()]
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
    return _figure(
        frame.caption,
        f'<a href="{cameras}"><img src="{cameras}" alt="Cameras, {caption}" loading="lazy"></a>',
        f'<a href="{top}"><img src="{top}" alt="From above, {caption}" loading="lazy"></a>',
    )


def _figure(caption: str, cameras: str, top_view: str) -> str:
    return (
        f'<figure><figcaption>{html.escape(caption)}</figcaption><div class="pictures">'
        f'<div class="cameras">{cameras}</div>{top_view}</div></figure>'
    )


def _embedded(image: Image.Image, width_px: int, caption: str) -> str:
    height_px = round(image.height * width_px / image.width)
    buffer = io.BytesIO()
    image.convert("RGB").resize((width_px, height_px)).save(buffer, "WEBP", quality=72)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/webp;base64,{data}" alt="{html.escape(caption)}">'


def _page(
    title: str,
    summary: Sequence[tuple[str, str]],
    above: str,
    figures: Sequence[str],
    tables: Sequence[PageTable],
) -> str:
    page = Template(files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    return page.substitute(
        title=html.escape(title),
        summary="\n".join(
            f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
            for name, value in summary
        ),
        above=above,
        frames="\n".join(figures),
        tables="\n".join(_table(table) for table in tables),
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
