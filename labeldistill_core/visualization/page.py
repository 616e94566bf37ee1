# SPDX-License-Identifier: Apache-2.0
"""HTML pages to look at results with; they need no server and no network.

`write_page` leaves a folder with pictures beside the page, `write_report` a single file.
"""

from __future__ import annotations

import base64
import io
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import FrameSet
from labeldistill_core.classes import CLASSES
from labeldistill_core.errors import ConfigError
from labeldistill_core.evaluation.metrics import Metrics
from labeldistill_core.files import naming, write_whole
from labeldistill_core.frames import Array, Transform
from labeldistill_core.visualization.pictures import (
    TOP_RANGE_M,
    birds_eye_view,
    camera_mosaic,
    mosaic_grid,
)

_TILE_PX, _TEXT_PX, _TOP_PX = 560, 21, 500
"""Letters of ten pixels where a page of 1280 pixels shows six cameras beside the top view."""


def refuse_odd_score(min_score: float) -> None:
    """Refuse a lowest score of boxes to draw that is none.

    Raises:
        ConfigError: says what can be given.
    """
    if not 0 <= min_score <= 1:
        raise ConfigError("--min-score must be from 0 to 1")


@dataclass(frozen=True, eq=False)
class PageFrame:
    """What the page shows of one set of images."""

    caption: str
    """Words above the images; see `PageFrame`."""
    cameras: Image.Image
    """See `pictures.camera_mosaic`."""
    top_view: Image.Image
    """See `pictures.birds_eye_view`."""
    highlight: str = ""
    """Why a report shows it once more, by itself, such as "Worst"."""
    grid: tuple[int, int] = (3, 2)
    """Columns and rows of `cameras`; see `pictures.mosaic_grid`."""

    @classmethod
    def drawn(
        cls,
        caption: str,
        frames: FrameSet,
        predicted: Boxes3D,
        truth: Boxes3D,
        fixed_from_ego: Transform,
        *,
        lidar_points: Array | None = None,
        class_names: Sequence[str] = CLASSES,
        range_m: float = TOP_RANGE_M,
    ) -> PageFrame:
        """Draw boxes into the images of a set and from above, at the sizes of a page.

        Args:
            caption: words above the images.
            frames: images and poses.
            predicted: in the fixed frame.
            truth: in the fixed frame.
            fixed_from_ego: pose of the vehicle, of the view from above.
            lidar_points: (P, 3) in the ego frame at that pose, for the view from above.
            class_names: names of the labels.
            range_m: what the view from above shows at least.

        Raises:
            ValueError: boxes are in another frame than the poses.
        """
        cameras = camera_mosaic(
            frames,
            predicted,
            truth,
            tile_width_px=_TILE_PX,
            class_names=class_names,
            text_px=_TEXT_PX,
        )
        top_view = birds_eye_view(
            predicted,
            truth,
            fixed_from_ego,
            lidar_points=lidar_points,
            size_px=_TOP_PX,
            class_names=class_names,
            range_m=max(range_m, TOP_RANGE_M),
        )
        return cls(caption, cameras, top_view, grid=mosaic_grid(frames))


@dataclass(frozen=True)
class PageTable:
    """A table with a title."""

    title: str
    """Heading above it."""
    header: tuple[str, ...]
    """Names of the columns; the first column holds words, the others numbers."""
    rows: Sequence[tuple[str, ...]]
    """Cells of each row, as many as the header has."""
    passed: Sequence[bool] = ()
    """Whether each row is good, where that is asked; its last cell has the colour of it."""


@dataclass(frozen=True)
class PageCard:
    """The figures of one run of several, large."""

    title: str
    """Name of the run."""
    summary: Sequence[tuple[str, str]]
    """Names and values."""


@dataclass(frozen=True)
class PageChart:
    """A drawing with a title."""

    title: str
    """Heading above it."""
    svg: Markup
    """See `charts`; goes into the page as it is."""


@dataclass(frozen=True)
class _Figure:
    """What the template needs of one set of images."""

    caption: str
    """Words above the images; see `PageFrame`."""
    cameras: tuple[str, ...]
    """Addresses of the pictures: a file beside the page with all cameras, or the cameras' pictures
    themselves as data URIs."""
    top_view: str
    """Address of the picture from above."""
    grid: tuple[int, int]
    """Columns and rows of the cameras."""
    size_px: tuple[int, int]
    """Width and height of all cameras together."""

    @property
    def crops(self) -> list[tuple[float, float]]:
        """Where each camera lies in a picture of all, percent of the room that is left."""
        columns, rows = self.grid
        return [
            (100 * column / max(1, columns - 1), 100 * row / max(1, rows - 1))
            for row in range(rows)
            for column in range(columns)
        ]


# Scenes, classes, runs and files are named by others: everything that the template inserts is
# escaped, but for the SVG that matplotlib wrote.
_TEMPLATES = Environment(
    loader=PackageLoader(__package__, ""),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
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
    path = folder / "index.html"
    path.unlink(missing_ok=True)  # or it would show pictures that are gone where this one fails
    for old in [*folder.glob("frame_*_cameras.jpg"), *folder.glob("frame_*_top.png")]:
        # A shorter page than before would leave pictures that it does not show.
        old.unlink()
    figures = [_write_frame(folder, index, frame) for index, frame in enumerate(frames)]
    write_whole(path, _page(title, summary, figures, tables).encode())
    return path


def write_report(
    path: Path,
    title: str,
    summary: Sequence[tuple[str, str]],
    frames: Iterable[PageFrame],
    tables: Sequence[PageTable] = (),
    charts: Sequence[PageChart] = (),
    *,
    cards: Sequence[PageCard] = (),
    compared: Sequence[PageTable] = (),
) -> None:
    """Write one HTML file with everything inside.

    Args:
        path: of the file.
        title: of the page.
        summary: name and value of the figures that are shown large.
        frames: in the order in which they are stepped through; those with a highlight are shown
            once more, behind the tables.
        tables: further figures.
        charts: drawings, above the tables.
        cards: of several runs, in the place of the summary.
        compared: tables that come first.
    """
    figures, special = [], []
    for frame in frames:
        cameras = tuple(_embedded(tile) for tile in _tiles(frame))
        figure = _figure(frame, cameras, _embedded(frame.top_view))
        figures.append(figure)
        if frame.highlight:
            # The same text of the picture, which is encoded once.
            special.append(replace(figure, caption=f"{frame.highlight}: {frame.caption}"))
    page = _page(title, summary, figures, tables, charts, special, cards=cards, compared=compared)
    write_whole(path, page.encode())


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
            # The devkit counts a class without true boxes as 0, which is no precision.
            *(
                _number(value) if metrics.truth_boxes[name] else _number(math.nan)
                for value in (
                    metrics.class_ap[name],
                    *(metrics.class_ap_at_m[name][d] for d in distances),
                )
            ),
        )
        for name in metrics.class_ap
    ]
    header = ("class", "truth", "boxes", "AP", *(f"AP at {d:g} m" for d in distances))
    errors = [(_ERRORS[name], _number(value)) for name, value in metrics.tp_errors.items()]
    return [
        PageTable("Average precision", header, by_class),
        PageTable("Mean errors of matched boxes", ("error", "mean"), errors),
    ]


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _write_frame(folder: Path, index: int, frame: PageFrame) -> _Figure:
    cameras, top_view = f"frame_{index:04d}_cameras.jpg", f"frame_{index:04d}_top.png"
    with naming(folder / cameras):
        frame.cameras.save(folder / cameras, quality=88)
    with naming(folder / top_view):
        frame.top_view.save(folder / top_view, optimize=True)
    return _figure(frame, (cameras,), top_view)


def _figure(frame: PageFrame, cameras: tuple[str, ...], top_view: str) -> _Figure:
    return _Figure(frame.caption, cameras, top_view, frame.grid, frame.cameras.size)


def _tiles(frame: PageFrame) -> Iterator[Image.Image]:
    """The cameras' pictures by themselves, so that a narrow screen can show them one by one."""
    columns, rows = frame.grid
    width, height = frame.cameras.width // columns, frame.cameras.height // rows
    for row, column in itertools.product(range(rows), range(columns)):
        left, top = column * width, row * height
        yield frame.cameras.crop((left, top, left + width, top + height))


def _embedded(image: Image.Image) -> str:
    """The picture as a data URI."""
    buffer = io.BytesIO()
    # WebP is smaller than a JPEG of the same look, and a report holds forty such pictures.
    image.convert("RGB").save(buffer, "WEBP", quality=72)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _page(
    title: str,
    summary: Sequence[tuple[str, str]],
    figures: Sequence[_Figure],
    tables: Sequence[PageTable],
    charts: Sequence[PageChart] = (),
    highlights: Sequence[_Figure] = (),
    *,
    cards: Sequence[PageCard] = (),
    compared: Sequence[PageTable] = (),
) -> str:
    return _TEMPLATES.get_template("page.html").render(
        title=title,
        cards=cards,
        compared=compared,
        summary=summary,
        charts=charts,
        highlights=highlights,
        figures=figures,
        tables=tables,
    )
