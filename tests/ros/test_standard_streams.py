# SPDX-License-Identifier: Apache-2.0
"""A node goes on whatever becomes of what it prints."""

from __future__ import annotations

import os
import subprocess
import sys

from labeldistill_ros.early_signals import ignore_signals

WRITES = (
    "import os, sys\n"
    "from labeldistill_ros.standard_streams import lose_what_nobody_reads\n"
    "lose_what_nobody_reads()\n"
    "for _ in range(40):\n"
    "    try: os.write(2, b'x' * 4095 + b'\\n')\n"
    "    except BlockingIOError: pass\n"
    "os._exit(7)\n"
)


def test_a_full_pipe_that_nobody_reads_holds_nothing_up() -> None:
    reader, writer = os.pipe()
    try:
        done = subprocess.run([sys.executable, "-c", WRITES], stderr=writer, timeout=30)
        assert done.returncode == 7
        # Whoever shares the pipe finds it as it was.
        assert os.get_blocking(writer)
        os.set_blocking(reader, False)
        assert os.read(reader, 4096) == b"x" * 4095 + b"\n"
    finally:
        os.close(reader)
        os.close(writer)


def test_what_is_read_is_all_there() -> None:
    done = subprocess.run([sys.executable, "-c", WRITES], stderr=subprocess.PIPE, timeout=30)
    assert set(done.stderr) <= set(b"x\n")
    assert len(done.stderr) >= 65536


def test_signals_at_the_end_change_no_exit_code() -> None:
    code = (
        "import signal, sys\n"
        f"from {ignore_signals.__module__} import end_at_signals, ignore_signals\n"
        "class Late:\n"
        "    def __del__(self): signal.raise_signal(signal.SIGTERM)\n"
        "end_at_signals(); ignore_signals(); sys.late = Late(); sys.exit(0)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 0


def test_no_output_can_be_written_and_the_code_still_tells() -> None:
    code = (
        "from labeldistill_core.exit_codes import exit_code\n"
        "from labeldistill_core.errors import DataError\n"
        "def refuse(): raise DataError('no')\n"
        "raise SystemExit(10 * exit_code(refuse, 'x') + exit_code(lambda: 0, 'x'))\n"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=full, timeout=60)
    assert done.returncode == 20
