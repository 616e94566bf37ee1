# SPDX-License-Identifier: Apache-2.0
"""Names that others chose cannot become markup of a page."""

import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from markupsafe import Markup
from PIL import Image

from labeldistill_core.visualization import charts
from labeldistill_core.visualization.page import (
    PageChart,
    PageFrame,
    PageTable,
    write_page,
    write_report,
)
from labeldistill_core.visualization.view import ViewOptions, view
from tests.support.nuscenes_fixture import VERSION

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style><b>",
    "{{ 7 * 7 }} {% raw %}",
    "--><script>",
    "&lt;b&gt; & $x^2$ \\frac",
)
ALLOWED = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "dl", "div", "dt", "dd",
           "nav", "button", "input", "output", "main", "figure", "figcaption", "a", "img",
           "section", "table", "thead", "tbody", "tr", "th", "td", "script"}  # fmt: skip


class Page(HTMLParser):
    """Tags, attributes and text of a page; what lies in an SVG is left out."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self._in_svg = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_svg |= tag == "svg"
        self.attributes += attrs
        if not self._in_svg:
            self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        self._in_svg &= tag != "svg"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def assert_harmless(text: str, shown: str) -> None:
    page = Page(text)
    assert set(page.tags) <= ALLOWED
    assert page.tags["script"] == 1  # the page's own
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    sources = [value or "" for name, value in page.attributes if name in ("src", "href")]
    assert all(s.startswith(("data:image/webp;base64,", "frame_0", "#")) for s in sources)
    # title, heading, name, value, caption, table's title, header and cell
    assert sum(shown in data for data in page.texts) >= 8


def content(name: str) -> tuple[list[tuple[str, str]], list[PageFrame], list[PageTable]]:
    picture = Image.new("RGB", (30, 20))
    frames = [
        PageFrame(f"{name}, 1.0 s", picture, picture, name),
        PageFrame(name, picture, picture),
    ]
    return [(name, name)], frames, [PageTable(name, (name, "p50"), [(name, "2.5")])]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_page_shows_hostile_names_as_text(name: str, tmp_path: Path) -> None:
    path = write_page(tmp_path, name, *content(name))
    assert_harmless(path.read_text(encoding="utf-8"), name)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_report_shows_hostile_names_as_text(name: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    group = SimpleNamespace(name=name, recall=0.5)
    breakdown: Any = SimpleNamespace(distance=[group, group])
    metrics: Any = SimpleNamespace(mean_ap=0.3, nds=0.4)
    drawn = [
        PageChart(name, charts.runs_compared({name: metrics, "other": metrics})),
        PageChart(name, charts.recall_by_distance({name: breakdown, "other": breakdown})),
        PageChart(name, charts.latencies({name: [1.0, 2.0]})),
    ]
    write_report(path, name, *content(name), drawn)
    assert_harmless(path.read_text(encoding="utf-8"), name)


def test_a_drawing_that_is_no_markup_is_escaped(tmp_path: Path) -> None:
    drawn: Any = "<svg onload=alert(1)></svg>"
    path = tmp_path / "report.html"
    write_report(path, "title", [], [], charts=[PageChart("drawing", drawn)])
    text = path.read_text(encoding="utf-8")
    assert "<svg" not in text
    assert "&lt;svg onload" in text
    write_report(path, "title", [], [], charts=[PageChart("drawing", Markup("<svg></svg>"))])
    assert "<svg></svg>" in path.read_text(encoding="utf-8")


def test_view_of_a_data_set_with_hostile_names(dataroot: Path, tmp_path: Path) -> None:
    scene, folder = HOSTILE[1], "<script>'x'"
    tables = dataroot / VERSION / "scene.json"
    rows = json.loads(tables.read_text())
    rows[0]["name"] = scene
    tables.write_text(json.dumps(rows))
    (tmp_path / folder).symlink_to(dataroot)
    view(tmp_path / folder, tmp_path / "out", ViewOptions(version=VERSION, scene=scene, limit=1))
    page = Page((tmp_path / "out" / "index.html").read_text(encoding="utf-8"))
    assert page.tags["script"] == 1
    assert any(text == f"{folder}: {scene}" for text in page.texts)
    assert any(text.startswith(f"{scene}, ") for text in page.texts)
