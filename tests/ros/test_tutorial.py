# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/own_vehicle.md, one after the other, at a small size."""

from __future__ import annotations

import re
import shlex
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from labeldistill_core.checkpoints import load_student
from labeldistill_core.config_files import Lists, read_config, to_yaml, with_lists
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.presets import Recipes
from labeldistill_core.synthetic import lidar
from labeldistill_core.training.fit import Machine
from labeldistill_core.training.recipe import Recipe
from labeldistill_ros.cli import main
from tests.support.small_networks import small_preset

pytestmark = pytest.mark.real_time

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs/own_vehicle.md").read_text()
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
_RIG = Path("config/rigs/five_cameras.yaml")
_CONFIG = Path("out/mine.yaml")


def commands(page: str) -> list[str]:
    """Lines of the page's blocks of shell."""
    blocks = (block.replace("\\\n", " ") for block in _BLOCK.findall(page))
    return [line for block in blocks for line in block.splitlines()]


def run(line: str) -> None:
    """Run a line as a shell would."""
    program, *words = shlex.split(line, comments=True)
    assert program == "labeldistill", line
    file = Path(words.pop()) if ">" in words else None
    try:
        if file:
            words.remove(">")
            with file.open("w") as out, redirect_stdout(out):
                code = main(words)
        else:
            code = main(words)
    except SystemExit as ended:
        raise AssertionError(f"{line}: its options are wrong") from ended
    assert code == 0, f"{line}: exit code {code}"


def shrink_rig() -> None:
    """Write the page's vehicle with few images of few pixels."""
    rig = yaml.safe_load((ROOT / _RIG).read_text())
    for camera in rig["cameras"]:
        camera |= {"size": [160, 96], "rate": 4}
    _RIG.parent.mkdir(parents=True)
    _RIG.write_text(yaml.safe_dump(rig))


def shrink_networks() -> None:
    """Put small networks and short recipes in the place of those of the user's configuration."""
    recipe = Recipe(epochs=1, batch_size=4)
    small = with_lists(small_preset(), Lists.of(read_config(_CONFIG)))
    _CONFIG.write_text(to_yaml(replace(small, recipes=Recipes(recipe, recipe, recipe))))


def test_the_page_leads_from_a_bag_to_a_detector(
    ros_domain_id: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    # A process that loads data costs more here than the loading.
    monkeypatch.setattr(Machine, "loaders", 0)
    monkeypatch.setattr(lidar, "AZIMUTHS", 361)
    shrink_rig()
    lines = commands(PAGE)
    for line in lines:
        run(line)
        if line.endswith(f"> {_CONFIG}"):
            shrink_networks()

    named = {word for line in lines for word in shlex.split(line) if word.startswith("out/")}
    assert not [word for word in named if not Path(word).exists()]
    tables = NuScenesTables(Path("out/car"), "v1.0-trainval-labelled")
    assert set(tables.scene_names) == {"scene-0061", "scene-0103", "scene-0553"}
    cameras = ("FRONT", "FRONT_LEFT", "FRONT_RIGHT", "REAR", "REAR_LEFT")
    assert (
        load_student(Path("out/car_student/student.safetensors")).student.config.cameras == cameras
    )
    said = capsys.readouterr().out
    assert "5 cameras (FRONT, FRONT_LEFT, FRONT_RIGHT, REAR, REAR_LEFT), 9 classes" in said
    assert "next: labeldistill bag score out/car_detected --dataroot DATAROOT\n" in said
    assert "samples with boxes 4 of 4" in said
    assert Path("out/car_demo/index.html").is_file()


@pytest.mark.parametrize(
    "line",
    [
        "labeldistill bag to-nuscenes out/bags/absent out/car",
        "labeldistill label out/car --techer out/teacher.safetensors",
        "labeldistil doctor",
    ],
)
def test_a_wrong_command_would_be_seen(line: str) -> None:
    with pytest.raises(AssertionError, match=line):
        run(line)
