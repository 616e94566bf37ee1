# SPDX-License-Identifier: Apache-2.0
"""Whether a later call means the same run."""

from __future__ import annotations

from typing import Any

from labeldistill_core.training.identity import differences


def test_what_is_nested_without_end_is_another_run() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"a": deep}
    told = ["it is nested deeper than that of any run"]
    assert differences({"recipe": deep}, {"recipe": {}}) == told
