# SPDX-License-Identifier: Apache-2.0
"""Which scenes of a data root are trained on and scored: official splits, own ones, names."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.splits import named_scenes, split_scenes
from labeldistill_core.errors import ConfigError, DataError
from labeldistill_core.evaluation.evaluate import EvaluationOptions, run_checkpoint
from labeldistill_core.installed_files import demo_model
from labeldistill_core.training.options import TrainingOptions

MINI = "v1.0-mini"


@pytest.fixture
def root(synthetic_dataroot: Path, tmp_path: Path) -> Path:
    """Two scenes, scene-0061 and scene-0103."""
    return shutil.copytree(synthetic_dataroot, tmp_path / "data")


def with_splits(root: Path, content: str) -> NuScenesTables:
    (root / MINI / "splits.json").write_text(content)
    return NuScenesTables(root)


def test_official_splits_belong_to_the_official_versions(root: Path) -> None:
    tables = NuScenesTables(root)
    assert split_scenes(tables, "train") == ["scene-0061"]
    assert split_scenes(tables, "val") == ["scene-0103"]
    assert split_scenes(tables, "all") == ["scene-0061", "scene-0103"]
    with pytest.raises(DataError, match="no split 'test', only train, val, all: name scenes"):
        split_scenes(tables, "test")
    (root / MINI).rename(root / "my_drives")
    with pytest.raises(DataError, match=r"'my_drives' has no split 'train', only all.*splits.json"):
        split_scenes(NuScenesTables(root), "train")


def test_a_file_beside_the_tables_names_splits_of_its_own(root: Path) -> None:
    splits = {"train": ["scene-0103"], "night": ["scene-0103", "scene-0061"]}
    tables = with_splits(root, json.dumps(splits))
    assert split_scenes(tables, "train") == ["scene-0103"]
    assert split_scenes(tables, "night") == ["scene-0103", "scene-0061"]
    assert split_scenes(tables, "val") == ["scene-0103"]  # official, since the file has none
    with pytest.raises(DataError, match="no split 'day', only train, night, train, val, all"):
        split_scenes(tables, "day")


def test_names_of_splits_and_scenes_are_cut_and_escaped(root: Path) -> None:
    many = {f"split{k}": ["scene-0061"] for k in range(10_000)}
    for content, named in (
        ({"\x1b[31m": ["scene-0061"]}, r"\\x1b\[31m'"),
        (many, "and 9983 more"),
        ({"day": ["x" * 10**6]}, r"xxx\.\.\."),
    ):
        with pytest.raises(DataError, match=named) as caught:
            split_scenes(with_splits(root, json.dumps(content)), "day")
        assert len(str(caught.value)) < 2000
        assert "\x1b" not in str(caught.value)


def test_what_is_no_file_is_no_file_of_splits(root: Path) -> None:
    (root / MINI / "splits.json").symlink_to("nowhere")
    with pytest.raises(DataError, match="splits.json is no file: remove it, or write the splits"):
        split_scenes(NuScenesTables(root), "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no file of splits"),
        ('["scene-0061"]', "no file of splits"),
        ('{"train": "scene-0061"}', "no file of splits"),
        ('{"train": []}', "no scene is named"),
        (
            '{"train": ["scene-0061", "scene-9999"]}',
            r"has no scene .scene-9999.; there are: ",
        ),
    ],
)
def test_a_wrong_file_of_splits_is_refused_by_its_name(
    root: Path, content: str, message: str
) -> None:
    with pytest.raises(DataError, match=rf"splits\.json.*{message}"):
        split_scenes(with_splits(root, content), "train")


def test_scenes_are_named_one_by_one_or_in_a_file(root: Path, tmp_path: Path) -> None:
    tables = NuScenesTables(root)
    file = tmp_path / "scenes.txt"
    file.write_text("scene-0103\n\n  scene-0061 \n")
    assert named_scenes(tables, ["scene-0061"]) == ["scene-0061"]
    assert named_scenes(tables, [str(file)]) == ["scene-0103", "scene-0061"]
    assert named_scenes(tables, ["scene-0061", str(file)]) == ["scene-0061", "scene-0103"]
    with pytest.raises(DataError, match="has no scene 'scene-1'"):
        named_scenes(tables, ["scene-1"])
    with pytest.raises(DataError, match="^'': .* has no scene ''"):
        named_scenes(tables, [""])
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="no list of scenes"):
        named_scenes(tables, [str(file)])


def test_training_takes_named_scenes_in_the_place_of_splits(root: Path) -> None:
    (root / MINI).rename(root / "my_drives")
    tables = NuScenesTables(root)
    options = TrainingOptions(train_scenes=("scene-0103",), val_scenes=("scene-0061",))
    assert options.scene_names(tables) == (["scene-0103"], [])
    both = replace(options, validate="val").scene_names(tables)
    assert both == (["scene-0103"], ["scene-0061"])


def test_evaluation_takes_named_scenes(root: Path) -> None:
    options = EvaluationOptions(scenes=("scene-0061",))
    found = run_checkpoint(demo_model(), root, options)
    assert set(found) == set(NuScenesTables(root).samples("scene-0061"))


def test_a_version_needs_no_name_where_it_is_clear(root: Path) -> None:
    assert NuScenesTables(root).version == MINI
    with pytest.raises(DataError, match=r"no tables ''/\*\.json; it has the versions v1\.0-mini"):
        NuScenesTables(root, "")
    shutil.copytree(root / MINI, root / "v1.0-other")
    with pytest.raises(DataError, match=r"versions v1.0-mini, v1.0-other; say which \(--version\)"):
        NuScenesTables(root)
    shutil.copytree(root / MINI, root / "v1.0-trainval")
    assert NuScenesTables(root).version == "v1.0-trainval"
    for name in ("v1.0-other", "v1.0-other/"):
        assert NuScenesTables(root, name).version == "v1.0-other"
    with pytest.raises(DataError, match="it has no tables at all"):
        NuScenesTables(root / "samples")


def test_no_scenes_at_all_is_no_number() -> None:
    with pytest.raises(ConfigError, match="--scenes must be 0 or more"):
        TrainingOptions(scenes=-1)
