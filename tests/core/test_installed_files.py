# SPDX-License-Identifier: Apache-2.0
"""Files that come along are found in a checkout and below every prefix."""

from pathlib import Path

import pytest

from labeldistill_core import installed_files
from labeldistill_core.checkpoints import load_student
from labeldistill_core.errors import ConfigError


def test_a_checkout_has_its_own_files() -> None:
    root = Path(installed_files.__file__).resolve().parents[1]
    assert installed_files.shared_file("config/detector.yaml") == root / "config/detector.yaml"
    assert load_student(installed_files.demo_model()).sha256


@pytest.mark.parametrize(
    "modules",
    [
        "lib/python3.11/site-packages",  # pip, colcon
        "local/lib/python3.10/dist-packages",  # Debian's Python
        "",  # pip install --target
    ],
)
def test_installed_modules_find_the_share_folder_of_their_prefix(
    modules: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / modules / "labeldistill_core" / "installed_files.py"
    model = tmp_path / "share" / "labeldistill_ros" / "config" / "models" / "demo.safetensors"
    for path in (module, model):
        path.parent.mkdir(parents=True)
        path.touch()
    monkeypatch.setattr(installed_files, "__file__", str(module))
    assert installed_files.demo_model() == model.resolve()


def test_a_file_that_is_not_there_is_told_with_the_places(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file config/none.yaml in .*share/labeldistill_ros"):
        installed_files.shared_file("config/none.yaml")
