# SPDX-License-Identifier: Apache-2.0
"""A version that is written anew keeps what others put beside it."""

from __future__ import annotations

import json
from pathlib import Path

from labeldistill_core.data.tables.version_folder import write_version


def test_a_version_may_be_a_link(tmp_path: Path) -> None:
    store, root = tmp_path / "store" / "mini", tmp_path / "root"
    store.mkdir(parents=True)
    root.mkdir()
    (store / "notes.txt").write_text("mine")
    (root / "v1.0-mini").symlink_to(store)
    for name in ("first", "second"):
        write_version(root / "v1.0-mini", [{"log": [{"token": name}]}])
        assert json.loads((store / "log.json").read_text()) == [{"token": name}]
    assert (store / "notes.txt").read_text() == "mine"
    assert (root / "v1.0-mini").is_symlink()
    assert [path.name for path in root.iterdir()] == ["v1.0-mini"]
    assert [path.name for path in store.parent.iterdir()] == ["mini"]
