# SPDX-License-Identifier: Apache-2.0
"""How the C library keeps memory between steps; a setting of the whole process."""

from __future__ import annotations

import ctypes
import sys

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # malloc.h of the GNU C library


def give_back_freed_memory() -> None:
    """Give what is free to the system now, after work that took much memory once.

    Only GNU's C library has a function for it.
    """
    if sys.platform.startswith("linux"):
        try:
            # What was freed lies between blocks in use, where the library keeps it until asked.
            ctypes.CDLL(None).malloc_trim(0)
        except (AttributeError, OSError):
            return


def keep_freed_memory(device: torch.device) -> bool:
    """Let this process keep the memory that a step gives back, for the next step.

    By default large buffers go back to the system at once and come back as pages that must be
    cleared and mapped again, which costs a sixth of a step of `r50_256x704_4key` on the CPU.
    Threads that start later share one heap: each with its own would keep the most that it ever
    held, and those heaps do go back and come again.

    For commands and the node to call when they start: a detector in a program of somebody else
    leaves that program's memory alone.

    Args:
        device: that computes the network; where it is a GPU, nothing is changed.

    Returns:
        Whether the C library was told and takes this advice; only GNU's does.
    """
    if device.type != "cpu" or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    # No buffer gets a mapping of its own, the heap's end stays, and all threads share it.
    advice = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_ARENA_MAX: 1}
    return all(mallopt(option, value) for option, value in advice.items())
