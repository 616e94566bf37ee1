# SPDX-License-Identifier: Apache-2.0
"""What the processes that load data do otherwise than torch has it."""

from __future__ import annotations

import io
import pickle
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import get_worker_info

from labeldistill_core.errors import LabelDistillError
from labeldistill_core.processes import end_with_parent

_GRACE_S = 30
"""From SIGTERM to the end of a loading process, which the training's own end precedes."""
_DIED = re.compile(r"DataLoader worker \(pid.*|unable to .*shared memory.*")
_FORWARDED = re.compile(r"Caught \w+ in DataLoader worker process.*\n[\w.]+: (.*)", re.DOTALL)


def begin_loading(_: int) -> None:
    """Make a loading process end with the training, which alone answers to Ctrl-C.

    Schedulers send SIGTERM to all processes, and the step that the training ends needs its data.
    """
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # An alarm and no wait: loading goes on, and the default action of SIGALRM ends the process.
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_S))


@dataclass(frozen=True)
class SharedCollate:
    """Puts samples together in memory that the training process sees.

    Torch moves a batch there while it is sent, in a thread whose errors nobody hears of: where the
    memory is too small, the training waits for ever.
    """

    collate: Callable[[Sequence[Any]], Any]
    """Function that puts several samples into one batch."""

    def __call__(self, samples: Sequence[Any]) -> Any:
        """Collate, and share the tensors from a loading process."""
        batch = self.collate(samples)
        if get_worker_info() is not None:
            # Pickling walks through whatever a batch consists of; what it writes is thrown away.
            _Sharing(io.BytesIO()).dump(batch)
        return batch


class _Sharing(pickle.Pickler):
    """Finds the tensors in anything that can be sent."""

    def persistent_id(self, value: Any) -> str | None:
        """Share a tensor, and leave its content out."""
        if not isinstance(value, Tensor):
            return None
        value.share_memory_()
        return "tensor"


def loading_error(error: Exception, workers: int) -> LabelDistillError | None:
    """What a failure of a loading process means to a user; None for any other failure."""
    text = str(error)
    if isinstance(error, LabelDistillError):
        # Torch sends an error as text with the worker's traceback; users need its last line.
        forwarded = _FORWARDED.search(text)
        return type(error)(forwarded[1].strip()) if forwarded else None
    if isinstance(error, RuntimeError) and (died := _DIED.search(text)):
        return LabelDistillError(
            f"a process that loads data ended ({died[0][:200]}): memory or shared memory was too "
            f"small for --workers {workers}. Repeat the command with --workers 0 or fewer than "
            "before, or give the container more of it (`docker run --shm-size 2g`)"
        )
    return None
