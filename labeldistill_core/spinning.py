# SPDX-License-Identifier: Apache-2.0
"""How long OpenMP's threads wait awake for the next piece of work; imports nothing heavy.

torch's wheels bring GNU's OpenMP. Its threads spin at each barrier for up to 300,000 turns, a few
milliseconds, before they sleep. Beside a process that wants their cores they burn its time, and it
theirs; if they sleep at once (`OMP_WAIT_POLICY=PASSIVE`), waking them costs more than a second
thread gains.
"""

from __future__ import annotations

import os
import sys

TURNS = 20_000
"""Some tenths of a millisecond: longer than what lies between two operations of a network, shorter
than the time slice of another process."""
_CHOSEN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")


def bound_spinning() -> bool:
    """Let threads spin for a bounded time, unless the environment says something about it.

    For commands and the node to call before they import torch, whose library reads the environment
    when it is loaded; the processes that they start inherit it.

    Returns:
        Whether it was set here, and in time.
    """
    if any(name in os.environ for name in _CHOSEN) or "torch" in sys.modules:
        return False
    os.environ["GOMP_SPINCOUNT"] = str(TURNS)
    return True
