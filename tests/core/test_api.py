# SPDX-License-Identifier: Apache-2.0
"""The public API: its names, its page, and its examples, which are run."""

import ast
import doctest
import importlib
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import labeldistill_core
from labeldistill_core import (
    Boxes3D,
    CameraCalibration,
    Detections,
    Transform,
    decode_jpeg,
)

ROOT = Path(__file__).resolve().parents[2]


def test_every_public_name_is_there_for_python_and_for_type_checkers() -> None:
    tree = ast.parse(Path(labeldistill_core.__file__).read_text())
    imported = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(imported) == sorted(labeldistill_core.__all__)
    for name, module in imported.items():
        assert module is not None
        assert getattr(labeldistill_core, name) is getattr(importlib.import_module(module), name)
        assert name in dir(labeldistill_core)
    with pytest.raises(AttributeError, match="no attribute 'Detecter'"):
        labeldistill_core.Detecter  # type: ignore[attr-defined]  # noqa: B018


def test_the_import_alone_is_cheap() -> None:
    code = "import sys, labeldistill_core; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_page_is_what_the_docstrings_say() -> None:
    script = ROOT / "scripts" / "api_page.py"
    page = (ROOT / "docs" / "api.md").read_text()
    assert page == runpy.run_path(str(script))["api_page"](), "run python scripts/api_page.py"
    for name in labeldistill_core.__all__:
        assert f"\n## {name}\n" in page


def test_examples_of_the_docstrings_hold() -> None:
    modules = {
        getattr(labeldistill_core, name).__module__
        for name in labeldistill_core.__all__
        if hasattr(getattr(labeldistill_core, name), "__module__")
    }
    results = [doctest.testmod(importlib.import_module(name)) for name in sorted(modules)]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= 10


def still(name: str, camera: dict[str, Any]) -> CameraCalibration:
    mount = camera["ego_from_camera"]
    where = Transform.from_quaternion("ego", name, mount["quaternion_wxyz"], mount["translation_m"])
    k = np.array(camera["intrinsics_px"])
    return CameraCalibration(name, k, camera["width_px"], camera["height_px"], where)


@pytest.mark.parametrize("text", ["README.md", "labeldistill_core/__init__.py"])
def test_the_snippet_detects(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / text).read_text(), re.DOTALL)
    folder = ROOT / "examples" / "images"
    cameras = json.loads((folder / "calibration.json").read_text())
    names: dict[str, Any] = {
        "calibrations": {name: still(name, camera) for name, camera in cameras.items()},
        "images": {n: decode_jpeg((folder / c["image"]).read_bytes()) for n, c in cameras.items()},
        "map_from_ego": Transform.identity("map", "ego"),
        "stamp_ns": 0,
    }
    exec(snippet, names)
    found = names["found"]
    assert isinstance(found, Detections)
    assert isinstance(found.boxes, Boxes3D)
    assert (found.boxes.scores > 0.5).sum() > 3
    assert "tensor" in capsys.readouterr().out
