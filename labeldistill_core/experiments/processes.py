# SPDX-License-Identifier: Apache-2.0
"""Long work in several processes, each of which keeps what it has in memory from one to the next.

`concurrent.futures` hands out work ahead of time and lets all that it has handed out come to its
end, which is too late for trainings when one of them fails or the user stops them.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch

from labeldistill_core.errors import LabelDistillError, StoppedError
from labeldistill_core.files import naming
from labeldistill_core.processes import end_with_parent
from labeldistill_core.runtime.allocator import keep_freed_memory
from labeldistill_core.runtime.device import resolve_device
from labeldistill_core.signals import StopRequest

_Work = TypeVar("_Work")
_Result = TypeVar("_Result")
_LOG = logging.getLogger(__name__)
LEAVE_S = 10.0
"""For a process without work to leave."""
_GRACE_S = 60.0
"""For a training to end its step and save itself; a second signal ends the waiting."""


def in_processes(
    function: Callable[[_Work], _Result],
    work: Sequence[_Work],
    outputs: Sequence[Path],
    processes: int,
    on_result: Callable[[int, _Result], None] | None = None,
) -> Generator[_Result]:
    """Results in the order of the work, which the processes share, and the cores and GPUs as well.

    The first that fails ends all of them at once. Ctrl-C and SIGTERM end them as they end a single
    one, which saves what is whole.

    Args:
        function: of a module, as for pickle.
        work: what it is called with.
        outputs: files to which each call's standard output and error are added.
        processes: how many calls run at a time.
        on_result: called with the index and the result of each call as soon as it ends.

    Raises:
        LabelDistillError: a process was killed.
        StoppedError: a signal came to this process.
        Exception: whatever the function raises.
    """
    # spawned, since neither CUDA nor threads survive a fork
    context = multiprocessing.get_context("spawn")
    # More threads than cores would wait for each other within each operation.
    threads = max(1, torch.get_num_threads() // processes)
    busy: dict[Connection, int] = {}
    workers: list[SpawnProcess] = []
    results: dict[int, _Result] = {}
    todo = iter(range(len(work)))
    with StopRequest(_stop):
        try:
            for place in range(min(processes, len(work))):
                ours, theirs = context.Pipe()
                serve = (function, theirs, place, threads)
                workers.append(context.Process(target=_serve, args=serve))
                workers[-1].start()
                theirs.close()  # so that a process that ends is noticed
                _give(ours, todo, work, outputs, busy)
            for index in range(len(work)):
                # In the order of the work, whichever ends first: a caller pairs results with what
                # it asked for.
                while index not in results:
                    for connection in wait(list(busy)):
                        assert isinstance(connection, Connection)
                        done = busy.pop(connection)
                        results[done] = _answer(connection, outputs[done])
                        if on_result:
                            on_result(done, results[done])
                        _give(connection, todo, work, outputs, busy)
                yield results.pop(index)
            _let_leave(workers)
        finally:
            _end(workers)


def _let_leave(workers: Sequence[SpawnProcess]) -> None:
    """Wait for those that have no more work, which give back by themselves what they have."""
    until = time.monotonic() + LEAVE_S
    for worker in workers:
        worker.join(max(0.0, until - time.monotonic()))


def _end(workers: Sequence[SpawnProcess]) -> None:
    until = time.monotonic() + _GRACE_S
    try:
        for worker in workers:
            worker.terminate()  # a training saves what is whole
        for worker in workers:
            worker.join(max(0.0, until - time.monotonic()))
    finally:  # a second signal may end the waiting
        for worker in workers:
            worker.kill()
            worker.join()


def _stop(number: int) -> NoReturn:
    raise StoppedError("stopped, repeat the command to go on", number)


def _give(
    connection: Connection,
    todo: Iterator[int],
    work: Sequence[Any],
    outputs: Sequence[Path],
    busy: dict[Connection, int],
) -> None:
    index = next(todo, None)
    if index is not None:
        with _alive(outputs[index]):
            connection.send((work[index], outputs[index]))
        busy[connection] = index
    else:
        connection.close()  # by which the process leaves, with the memory that it has


def _answer(connection: Connection, output: Path) -> Any:
    with _alive(output):
        failed, answer = connection.recv()
    if failed:
        raise answer
    return answer


@contextmanager
def _alive(output: Path) -> Iterator[None]:
    """Tell what it means when the other side of a connection is gone."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise LabelDistillError(
            f"the process that writes {output} was ended, perhaps for want of memory: repeat the "
            "call with fewer at a time, and it goes on"
        ) from error


def _serve(
    function: Callable[[Any], Any], connection: Connection, place: int, threads: int
) -> None:
    """What a process does: one call after the other."""
    end_with_parent()
    # Ctrl-C goes to all processes of a terminal; the parent ends these in its own way
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO)
    share_machine(place, threads)
    keep_freed_memory(resolve_device("auto"))
    while True:
        try:
            work, output = connection.recv()
        except EOFError:  # the parent has no more work; a traceback would end up in the last output
            return
        answer = None
        try:
            with naming(output), _output_to(output):
                answer = _answered(function, work)
        except OSError as error:  # of the output
            answer = answer or (True, error)
        connection.send(answer)
        if isinstance(answer[1], StoppedError):
            return


def _answered(function: Callable[[Any], Any], work: Any) -> tuple[bool, Any]:
    """Whether a call failed, and what it returned or raised.

    As a value, since an exception that ended the process would be known only by its absence.
    """
    try:
        return False, function(work)
    except StoppedError as stopped:
        return True, stopped
    except Exception as error:
        _LOG.exception("failed")
        return True, error


def share_machine(place: int, threads: int) -> None:
    """Take so many cores, and one GPU.

    Args:
        place: of this process among those that run at a time; GPUs are dealt out in turn.
        threads: that torch computes with.
    """
    torch.set_num_threads(threads)
    if gpus := torch.cuda.device_count():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus))))
        # Before CUDA starts in this process, so that "auto" means this GPU.
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[place % gpus]


@contextmanager
def _output_to(file: Path) -> Iterator[None]:
    """Also what libraries and this process's own processes print."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as stream:
        for fd in (1, 2):
            # The descriptors and not `sys.stdout`: libraries in C and loading processes write to
            # them.
            os.dup2(stream.fileno(), fd)
        yield
        sys.stdout.flush()
        sys.stderr.flush()
