# SPDX-License-Identifier: Apache-2.0
"""What a program ends with, and what it tells of that.

| code | meaning |
|---|---|
| 0 | done |
| 1 | done, and a threshold that was asked for is missed |
| 2 | a wrong call, input that cannot be used, no room on the disk, in memory or on the GPU |
| 3 | a fault of this program; its traceback lies in a file that the message names |
| 130 | Ctrl-C |
| 143 | SIGTERM, as schedulers send it |
| 141 | whoever read the output has left, as `head` does |
"""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from labeldistill_core.errors import LabelDistillError, StoppedError
from labeldistill_core.names import plain_text

MISSED, REFUSED, FAULT, INTERRUPTED = 1, 2, 3, 130
_READER_LEFT = 128 + 13
"""As the shell says of a program that SIGPIPE ended."""
_ROS = "source a ROS 2 distribution, or run `make setup` in a checkout"
_PIP = "pip install '.[{}]' in a checkout"
_MISSING = {
    "embreex": _PIP.format("synthetic"),
    "lightning": _PIP.format("train"),
    "tensorboard": _PIP.format("train"),
    "nuscenes": _PIP.format("nuscenes"),
    "matplotlib": _PIP.format("nuscenes"),
    "rosbags": _PIP.format("bags"),
    **dict.fromkeys(("apsw", "backports", "cv2", "lz4", "mcap", "zstandard"), _PIP.format("bags")),
    "rclpy": _ROS,
    "vision_msgs": _ROS,
    "sensor_msgs": _ROS,
    "std_msgs": _ROS,
    "diagnostic_msgs": _ROS,
    "visualization_msgs": _ROS,
    "tf2_msgs": _ROS,
}
"""Module that only some commands need, and how to get it."""

_MENDS = {
    errno.ENOSPC: "free some space, or write elsewhere",
    errno.EDQUOT: "free some space, or write elsewhere",
    errno.EACCES: "change its permissions, or name another path",
    errno.EPERM: "change its permissions, or name another path",
    errno.EROFS: "write elsewhere",
    errno.ENOENT: "check the path",
    errno.EISDIR: "name a file in it",
    errno.ENOTDIR: "a part of this path is a file: name another one",
    errno.EEXIST: "remove it, or name another path",
    errno.EMFILE: "raise the limit (`ulimit -n`)",
    errno.EFBIG: "raise the limit (`ulimit -f`), or write to another file system",
    errno.EAGAIN: "raise the limit (`ulimit -u`), or use fewer processes",
    errno.ELOOP: "a link in this path leads to itself: remove it, or name another path",
    errno.ENAMETOOLONG: "choose a shorter name",
}
"""What helps against an error of the system."""
_LONGEST = 10_000
"""Characters of what is told of an error."""
_NO_MEMORY = (
    "take a smaller batch, fewer processes or another device, or raise the limit (`ulimit -v`)"
)
_MEMORY_TEXTS = (
    "can't allocate memory",  # of torch on a CPU
    "cannot allocate memory",
    "failed to map segment",  # of the loader of shared libraries
    "bad_alloc",  # of C++
    "insufficient memory",  # of OpenCV
    "failed to allocate",
    "can't start new thread",  # whose stack has no room, or of which there are too many
)
"""What libraries say in errors of no class of their own where there is no memory."""


def exit_code(call: Callable[[], Any], name: str) -> int:
    """Do it, and tell of what it raises in one line; returns the exit code, see above.

    Args:
        call: what to do; an int that it returns is the exit code.
        name: of the program, for what it says.
    """
    try:
        result = call()
        if sys.stdout is not None:  # as where it was closed before Python started
            sys.stdout.flush()  # nothing where nothing was printed, even on a full disk
    except StoppedError as stopped:
        _settle_output()
        print(_printable(str(stopped)), file=sys.stderr)
        return 128 + stopped.signal
    except LabelDistillError as error:
        return _say(str(error))
    except ModuleNotFoundError as error:
        hint = _MISSING.get((error.name or "").partition(".")[0])
        if hint is None:
            return _fault(name, error)
        return _say(f"{name} needs {error.name}, which is not installed: {hint}")
    except BrokenPipeError as error:
        if not _reader_left():
            return _say(_of_system(error))
        # Python flushes once more when it ends, and would complain of the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_LEFT
    except OSError as error:
        if error.errno == errno.ENOMEM:
            return _say(_out_of_memory(error))
        if error.filename is None and _output_fails():
            error.filename = "standard output"
        return _say(_of_system(error))
    except KeyboardInterrupt:
        _settle_output()
        print("ended by SIGINT", file=sys.stderr)
        return INTERRUPTED
    # The last resort of a program: what arrives here is a fault of ours, and is kept with its
    # traceback.
    except Exception as error:
        if _is_of_memory(error):
            return _say(_out_of_memory(error))
        # Of `Path.resolve`, which raises what the system does from Python 3.13 on.
        if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop from"):
            return _say(f"{error}: {_MENDS[errno.ELOOP]}")
        return _fault(name, error)
    return result if isinstance(result, int) else 0


def _say(message: str) -> int:
    _settle_output()
    with suppress(OSError):  # it may be closed or full as well, and the code has to tell then
        print(f"error: {_printable(message)}", file=sys.stderr)
    return REFUSED


def _printable(message: str) -> str:
    """In one line: what came from outside, as a path does, must not look like another message."""
    told = "".join(map(plain_text, message[:_LONGEST]))
    return f"{told}{'...' if message[_LONGEST:] else ''}"


def _settle_output() -> None:
    """Write what was printed, since what comes last has to stand last where both go to one file.

    Where that is not possible the rest goes nowhere: it would fail once more when Python ends.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _output_fails() -> bool:
    """Whether nothing can be printed, as where the output goes to a full disk."""
    # The system does not say which file it could not write. What failed is still in the buffer, and
    # devices refuse nothing as well; else the file's disk is looked at.
    try:
        sys.stdout.flush()
        number = sys.stdout.fileno()
        os.write(number, b"")
        return stat.S_ISREG(os.fstat(number).st_mode) and not os.fstatvfs(number).f_bavail
    except ValueError:  # of an output that is no file, as a test's
        return False
    except OSError:
        return True


def _of_system(error: OSError) -> str:
    """The file, what the system says of it, and what helps."""
    files = [str(file) for file in (error.filename, error.filename2) if file is not None]
    what = error.strerror or _first_line(error) or type(error).__name__
    mend = _MENDS.get(error.errno or 0)
    return ": ".join(part for part in (" -> ".join(files), what, mend) if part)


def _is_of_memory(error: BaseException | None) -> bool:
    """Whether an error arose where there was no memory, on a GPU or in the machine."""
    # Where torch was never imported, the error is not torch's.
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    if isinstance(error, RuntimeError | ImportError | SystemError):
        told = str(error).lower()
        if any(text in told for text in _MEMORY_TEXTS):
            return True
    return error is not None and error.__cause__ is not error and _is_of_memory(error.__cause__)


def _out_of_memory(error: BaseException) -> str:
    what = _first_line(error)
    return f"out of memory{f' ({what})' if what else ''}: {_NO_MEMORY}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _fault(name: str, error: Exception) -> int:
    """Keep the traceback of an error that nobody foresaw, and say where it lies."""
    text = "".join(traceback.format_exception(error))
    what = f"{type(error).__name__}: {_first_line(error)}"
    try:
        kept = f"its traceback is in {_keep(text)}; please report it with that file"
    except OSError:
        print(text, file=sys.stderr)  # rather than losing it
        kept = "its traceback stands above; please report it with that"
    print(f"error: {name} failed unforeseen ({_printable(what)}): {kept}", file=sys.stderr)
    return FAULT


def _keep(text: str) -> Path:
    """Write a traceback to the user's state folder, or where temporary files go.

    Raises:
        OSError: neither can be written.
    """
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    content = f"{' '.join(sys.argv)}\nPython {sys.version}\n\n{text}"
    # Containers often run without a home that can be written to.
    for folder in (Path(state) / "labeldistill", Path(tempfile.gettempdir()) / "labeldistill"):
        file = folder / f"error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return file
    raise OSError("no folder for the traceback")


def _reader_left() -> bool:
    """Whether who reads the output has seen enough, as `head` does."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    # A broken pipe may be any file's; only that of the output means that nobody reads it.
    return any(event & select.POLLERR for _, event in poll.poll(0))
