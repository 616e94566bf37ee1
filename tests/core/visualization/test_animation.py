# SPDX-License-Identifier: Apache-2.0
"""Moving pictures of a page's frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from labeldistill_core.errors import ConfigError
from labeldistill_core.visualization.animation import AnimationOptions, animated, side_by_side
from labeldistill_core.visualization.page import PageFrame
from labeldistill_core.visualization.view import ViewOptions, view


def frame(grey: int) -> PageFrame:
    cameras = Image.new("RGB", (300, 100), (grey, grey, grey))
    return PageFrame("", cameras, Image.new("RGB", (50, 50), (0, 0, 255)))


def test_view_from_above_stands_right_of_the_cameras_as_high_as_they() -> None:
    picture = np.asarray(side_by_side(frame(200), 800))
    assert picture.shape == (200, 800, 3)
    assert (picture[20:180, 20:580] == 200).all()
    assert (picture[20:180, 620:780] == (0, 0, 255)).all()


def test_frames_are_handed_on_and_the_file_comes_with_the_last(tmp_path: Path) -> None:
    path = tmp_path / "new" / "moving.webp"
    frames = [frame(grey) for grey in (20, 120, 220)]
    handed: list[PageFrame] = []
    for one in animated(iter(frames), path):
        assert not path.exists()
        handed.append(one)
    assert handed == frames
    greys = []
    with Image.open(path) as moving:
        for shown in ImageSequence.Iterator(moving):
            # only loaded frames know how long they last
            greys.append(int(np.asarray(shown.convert("L"))[50, 50]))
            assert shown.info["duration"] == 400
    assert greys == pytest.approx([20, 120, 220], abs=4)


def test_frames_of_fewer_cameras_may_be_lower(tmp_path: Path) -> None:
    low = PageFrame("", Image.new("RGB", (300, 60), (90,) * 3), Image.new("RGB", (50, 50)))
    path = tmp_path / "moving.webp"
    assert len(list(animated([low, frame(200), low], path))) == 3
    with Image.open(path) as moving:
        assert moving.n_frames == 3
        assert moving.size == (1760, 440)


def test_no_frames_and_frames_that_break_leave_no_file(tmp_path: Path) -> None:
    path = tmp_path / "moving.webp"
    assert list(animated([], path)) == []

    def breaking() -> Iterator[PageFrame]:
        yield frame(1)
        raise OSError("no more images")

    with pytest.raises(OSError, match="no more images"):
        list(animated(breaking(), path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.gif", "a.mp4", "a"])
def test_another_format_is_refused_before_anything_is_drawn(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}: it is written as WebP"):
        AnimationOptions(animation=Path(name))


def test_view_writes_one_of_its_key_frames(synthetic_dataroot: Path, tmp_path: Path) -> None:
    path = tmp_path / "moving.webp"
    view(
        synthetic_dataroot, tmp_path / "page",
        ViewOptions(version="v1.0-mini", limit=2, animation=path),
    )  # fmt: skip
    with Image.open(path) as moving:
        assert getattr(moving, "n_frames", 1) == 2
