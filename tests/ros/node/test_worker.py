# SPDX-License-Identifier: Apache-2.0
"""The newest item wins, nothing is lost without a word, and the thread ends."""

from __future__ import annotations

import logging
import threading
import weakref

import pytest

from labeldistill_ros.node.worker import SingleSlotWorker


class Gate:
    """Work that waits to be let through."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.begun = threading.Semaphore(0)
        self.open = threading.Semaphore(0)

    def __call__(self, item: int) -> None:
        self.begun.release()
        assert self.open.acquire(timeout=5)
        if item < 0:
            raise RuntimeError("a bad item")
        self.done.append(item)


def test_newest_wins_and_the_other_comes_back() -> None:
    gate = Gate()
    worker = SingleSlotWorker(gate, "test")
    assert worker.submit(1) is None
    assert gate.begun.acquire(timeout=5)
    assert worker.submit(2) is None
    assert worker.submit(3) == 2
    gate.open.release(2)
    assert gate.begun.acquire(timeout=5)
    assert worker.stop(5)
    assert gate.done == [1, 3]


def test_an_item_will_be_taken_when_the_work_ends_before_the_next_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, now = Gate(), [0.0]
    monkeypatch.setattr("labeldistill_ros.node.worker.time.monotonic", lambda: now[0])
    worker = SingleSlotWorker(gate, "test")

    def submit(item: int, at_s: float) -> bool:
        now[0] = at_s
        worker.submit(item)
        return worker.will_take

    assert submit(1, 0.0)
    assert gate.begun.acquire(timeout=5)
    submit(2, 0.08)
    now[0] = 0.1
    gate.open.release()  # the first one took 0.1 s, so that the second is to end at 0.2 s
    assert gate.begun.acquire(timeout=5)
    assert not submit(3, 0.11)  # the next would come at 0.14 s
    assert submit(4, 0.17)  # the next would come at 0.23 s
    assert submit(5, 0.29)  # late, so about to end
    assert not submit(6, 0.41)  # nobody knows when it ends
    gate.open.release(2)
    assert worker.stop(5)


def test_withdraw_and_stop_drop_what_waits() -> None:
    gate = Gate()
    worker = SingleSlotWorker(gate, "test")
    worker.submit(1)
    assert gate.begun.acquire(timeout=5)
    worker.submit(2)
    assert worker.withdraw() == 2
    assert worker.withdraw() is None
    worker.submit(3)
    assert not worker.stop(0.05)  # still in work
    gate.open.release(3)
    assert worker.stop(5)
    assert gate.done == [1]


def test_an_error_does_not_end_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    worker = SingleSlotWorker(gate, "test")
    with caplog.at_level(logging.ERROR):
        worker.submit(-1)
        assert gate.begun.acquire(timeout=5)
        worker.submit(2)
        gate.open.release(2)
        assert gate.begun.acquire(timeout=5)
        assert worker.stop(5)
    assert gate.done == [2]
    assert "a bad item" in caplog.text


def test_nothing_of_a_finished_item_is_kept() -> None:
    class Item:
        """What a set is to the worker: something large."""

    ended = threading.Event()
    worker = SingleSlotWorker[Item](lambda _: None, "test")
    item = Item()
    weakref.finalize(item, ended.set)
    worker.submit(item)
    del item
    assert ended.wait(5)
    assert worker.stop(5)
