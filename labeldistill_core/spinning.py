# SPDX-License-Identifier: Apache-2.0
"""How long threads of OpenMP and OpenBLAS wait awake for more work; imports nothing heavy.

torch's wheels bring GNU's OpenMP. Its threads spin at each barrier for up to 300,000 turns, a few
milliseconds, before they sleep; those of numpy's OpenBLAS for tens of milliseconds after a product
of matrices. Beside others that want their cores they burn their time. OpenMP's cannot sleep at once
either (`OMP_WAIT_POLICY=PASSIVE`): waking them costs more than a second thread gains.
"""

from __future__ import annotations

import os
import sys

TURNS = 20_000
"""Some tenths of a millisecond: longer than what lies between two operations of a network, shorter
than the time slice of another process."""
_OPENBLAS_TURNS = 4
"""Power of two, the least that OpenBLAS takes: numpy's products are few and far apart."""
_OPENMP_NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
_OPENBLAS_NAME = "OPENBLAS_THREAD_TIMEOUT"


def bound_spinning() -> None:
    """Let threads spin for a bounded time, unless the environment says something about it.

    For commands and the node to call before they import numpy and torch, whose libraries read the
    environment when they are loaded; the processes that they start inherit it.
    """
    if not any(name in os.environ for name in _OPENMP_NAMES) and "torch" not in sys.modules:
        os.environ["GOMP_SPINCOUNT"] = str(TURNS)
    if _OPENBLAS_NAME not in os.environ and "numpy" not in sys.modules:
        os.environ[_OPENBLAS_NAME] = str(_OPENBLAS_TURNS)
