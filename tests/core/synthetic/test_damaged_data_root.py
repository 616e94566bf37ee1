# SPDX-License-Identifier: Apache-2.0
"""A synthetic data root that others wrote to, that is damaged, or that two processes write."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from labeldistill_core.errors import ConfigError, DataError
from labeldistill_core.files import sole_user
from labeldistill_core.synthetic.dataset import WorldOptions, write_dataset

OPTIONS = WorldOptions(scenes=1, key_frames=1, image_size_px=(64, 36), workers=1)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world") / "root"
    write_dataset(root, OPTIONS)
    return root


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    shutil.copytree(written, tmp_path / "root")
    return tmp_path / "root"


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"[" * 100_000, b"\xff", b'{"scene": [5]}'],
    ids=["empty", "list", "deep", "bytes", "rows"],
)
def test_damaged_files_are_named(content: bytes, root: Path) -> None:
    part = next(file for file in (root / ".scenes").glob("scene-*.json"))
    whole = part.read_bytes()
    part.write_bytes(content)
    with pytest.raises(DataError, match=f"{part.name} is damaged: remove it"):
        write_dataset(root, OPTIONS)
    part.unlink()
    write_dataset(root, OPTIONS)
    assert part.read_bytes() == whole
    if not content.startswith(b"{"):
        (root / ".scenes/settings.json").write_bytes(content)
        with pytest.raises(DataError, match=r"settings.json is damaged.*use another folder"):
            write_dataset(root, OPTIONS)


def test_files_of_others_stay(root: Path) -> None:
    (tables,) = root.glob("v1.0-*")
    (tables / "mine.txt").write_text("mine")
    before = (tables / "scene.json").read_bytes()
    write_dataset(root, OPTIONS)
    assert (tables / "mine.txt").read_text() == "mine"
    assert (tables / "scene.json").read_bytes() == before
    (tables / "labels.json").write_text("{}")
    with pytest.raises(DataError, match="were labelled in their place"):
        write_dataset(root, OPTIONS)


def test_a_second_writer_is_refused(root: Path, tmp_path: Path) -> None:
    with (
        sole_user(root / ".scenes/lock", "no"),
        pytest.raises(ConfigError, match="another process writes to"),
    ):
        write_dataset(root, OPTIONS)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty and no synthetic data root"):
        write_dataset(tmp_path / "other", OPTIONS)
    assert [file.name for file in (tmp_path / "other").iterdir()] == ["mine.txt"]
