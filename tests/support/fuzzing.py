# SPDX-License-Identifier: Apache-2.0
"""How many inputs are tried at the doors through which data of others come in.

Each door has generators in the tests with the mark `fuzz`, at a size that every run can bear.
`FUZZ_FACTOR=10 pytest -m fuzz --hypothesis-seed=1` tries ten times as many.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

FACTOR = int(os.environ.get("FUZZ_FACTOR", "1"))
"""How many times as many inputs as usual."""

Test = TypeVar("Test", bound=Callable[..., Any])


def fuzz(examples: int) -> Callable[[Test], Test]:
    """Try a test with so many inputs, times `FACTOR`; to stand above `given`."""

    def decorate(test: Test) -> Test:
        chosen = settings(
            max_examples=examples * FACTOR,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        )
        marked: Test = pytest.mark.fuzz(chosen(test))
        return marked

    return decorate
