# SPDX-License-Identifier: Apache-2.0
"""Lists of what pip brings, where a ROS distribution brings the rest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

OF_ROSDEP = {"filelock", "markupsafe", "PyYAML", "typing_extensions"}
"""In the distribution, or drawn in by the others."""


@pytest.mark.parametrize(
    "file", ["README.md", "examples/deploy/Dockerfile", ".github/workflows/ci.yml"]
)
def test_what_the_node_needs_is_in_each_list(file: str, repository: Path) -> None:
    setup = (repository / "setup.py").read_text()
    block = re.search(r"install_requires=\[(.*?)\]", setup, re.DOTALL)
    assert block
    needed = set(re.findall(r'"([A-Za-z_]+)', block[1])) - OF_ROSDEP
    assert {"torch", "simplejpeg"} <= needed
    text = (repository / file).read_text()
    lists = [
        set(re.findall(r"[a-z]+", words)) for words in re.findall(r"torch torchvision.*", text)
    ]
    assert lists
    assert [needed - own for own in lists] == [set()] * len(lists)
