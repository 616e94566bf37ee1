# SPDX-License-Identifier: Apache-2.0
"""Which signals end the node's loop."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from labeldistill_ros.node.stopping import StopSignals

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in _ENDING}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", _ENDING)
def test_a_signal_is_remembered_while_the_node_runs(number: signal.Signals) -> None:
    signals = StopSignals()
    signals.running = True
    for _ in range(2):
        signal.raise_signal(number)
    assert signals.number == number


@pytest.mark.parametrize("number", _ENDING)
def test_the_first_signal_ends_a_start_and_the_second_disturbs_no_end(
    number: signal.Signals,
) -> None:
    signals = StopSignals()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    signal.raise_signal(number)
    assert signals.number == number


def test_a_node_under_nohup_outlives_its_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals = StopSignals()
    signals.running = True
    signal.raise_signal(signal.SIGHUP)
    assert signals.number == 0
