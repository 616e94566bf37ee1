# SPDX-License-Identifier: Apache-2.0
"""Processes that end with the one that started them, whatever ends it."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Literal

from labeldistill_core.errors import ConfigError
from labeldistill_core.names import shown

_LIBC = ctypes.CDLL(None)
"""Opened here, since a process that was just forked should not wait for the loader's lock."""
_PR_SET_PDEATHSIG = 1
"""Of Linux' prctl: a signal that the kernel sends to a process when its parent ends."""


RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
"""Variables in which launchers number the processes of a run."""
_NUMBERS = (*RANKS, "GROUP_RANK", "WORLD_SIZE", "MASTER_PORT", "SLURM_LOCALID", "SLURM_NODEID")


def refuse_odd_launcher() -> None:
    """See that what a launcher tells is what lightning can read, which does so when imported.

    Raises:
        ConfigError: a variable of Slurm or torchrun is no number.
    """
    for name in _NUMBERS:
        value = os.environ.get(name, "0")
        if not value.strip().isdecimal():
            raise ConfigError(
                f"{name} in the environment is {shown(value)}, and launchers set it to a number: "
                "unset it, or start by `srun` or `torchrun`"
            )


def end_with_parent() -> None:
    """Let the kernel end this process when its parent ends, even by SIGKILL; for its first lines.

    Strictly, when the thread ends that started it, which should be the parent's main thread. Other
    systems than Linux know no such thing, and there the process goes on.
    """
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)  # it had ended before the kernel was asked


def worker_count(asked: int, most: int | None = None) -> int:
    """Processes that share some work.

    Args:
        asked: by the user; one a core when 0.
        most: that have anything to do.

    Raises:
        ConfigError: fewer than none are asked for.
    """
    if asked < 0:
        raise ConfigError(f"--workers is {asked}: use 1 or more, or 0 for one a core")
    count = asked or os.cpu_count() or 1
    return count if most is None else min(count, most)


@contextmanager
def worker_pool(
    workers: int, method: Literal["fork", "spawn"], initializer: Callable[[], object] | None = None
) -> Iterator[ProcessPoolExecutor]:
    """A pool that is ended at once, with what it is doing, when an exception leaves the block.

    Args:
        workers: number of processes.
        method: how they are started.
        initializer: what each of them does first; a function of a module.

    Raises:
        ConfigError: a process of the pool was ended from outside.
    """
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context(method), _begin, (initializer,))
    try:
        yield pool
    except BaseException as error:
        # its own shutdown waits for all that has been handed out, which may take hours
        ours = set(multiprocessing.active_children()) - before
        pool.shutdown(wait=False, cancel_futures=True)
        for process in ours:
            process.kill()
        if isinstance(error, BrokenProcessPool):
            raise ConfigError(
                "a worker process was ended from outside, as the system does where memory runs "
                "out: take fewer processes (--workers), and repeat the command"
            ) from error
        raise
    finally:
        pool.shutdown()


def _begin(initializer: Callable[[], object] | None) -> None:
    end_with_parent()
    # Ctrl-C goes to all processes of a terminal; the parent decides what it means
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if initializer:
        initializer()
