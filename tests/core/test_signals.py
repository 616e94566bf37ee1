# SPDX-License-Identifier: Apache-2.0
"""Stops by Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from labeldistill_core import signals
from labeldistill_core.signals import StopRequest


def test_what_comes_together_is_one_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "ONE_STOP_S", 0.2)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    seen: list[int] = []
    with StopRequest(seen.append) as stop:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
        assert seen == [signal.SIGTERM]
        time.sleep(0.25)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a library may
        stop.listen()
        signal.raise_signal(signal.SIGINT)
    assert seen == [signal.SIGTERM, signal.SIGINT]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_other_threads_leave_signals_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    found: list[object] = []

    def work() -> None:
        with StopRequest(lambda _: None) as stop:
            stop.listen()
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]
