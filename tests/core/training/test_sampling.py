# SPDX-License-Identifier: Apache-2.0
"""Seeds are the same in every process."""

from __future__ import annotations

import os
import subprocess
import sys

from labeldistill_core.training.sampling import EpochOrder, seed_of

ORDER = """
from labeldistill_core.training.sampling import EpochOrder
print(list(EpochOrder(range(20), 2, seed=7)))
"""


def test_the_order_does_not_depend_on_the_process() -> None:
    orders = {
        subprocess.run(
            [sys.executable, "-c", ORDER], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout.strip()
        for seed in ("0", "1")
    }  # fmt: skip
    assert orders == {str(list(EpochOrder(range(20), 2, seed=7)))}


def test_seeds_tell_their_numbers_apart() -> None:
    assert seed_of(0, 0) == 5903642253403033523
    assert len({seed_of(a, b) for a in range(20) for b in range(20)}) == 400
    assert seed_of(1, 12) != seed_of(11, 2)
