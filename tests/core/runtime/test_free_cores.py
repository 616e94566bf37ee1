# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from labeldistill_core.runtime import free_cores as module
from labeldistill_core.runtime.free_cores import CoreUse, FittedThreads, core_use, free_cores


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("busy_s", "own_s", "free"),
    [(2.0, 2.0, 2.0), (1.0, 0.0, 1.0), (2.0, 1.4, 1.4), (2.0, 0.0, 0.0), (0.5, 0.6, 2.0)],
)
def test_free_cores(busy_s: float, own_s: float, free: float) -> None:
    now = CoreUse(11.0, 100 + busy_s, 5 + own_s)
    assert free_cores(CoreUse(10.0, 100.0, 5.0), now, 2) == pytest.approx(free)


def test_the_systems_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 2})
    monkeypatch.setattr("os.sysconf", lambda _: 100)
    monkeypatch.setattr("os.nice", lambda _: 0)
    stat = tmp_path / "stat"
    stat.write_text(
        "cpu  9 9 9 9 9 9 9 9 0 0\n"
        "cpu0 100 7 50 900 30 1 2 40 5 0\n"
        "cpu1 999 0 0 0 0 0 0 0 0 0\n"
        "cpu2 10 0 0 0 0 0 0 0 0 0\n"
        "intr 5 6\n"
    )
    use = core_use(stat)
    assert use is not None
    assert use.busy_s == pytest.approx((100 + 50 + 1 + 2 + 40 + 10) / 100)
    monkeypatch.setattr("os.nice", lambda _: 5)
    low = core_use(stat)
    assert low is not None
    assert low.busy_s == pytest.approx(use.busy_s + 0.07)
    assert core_use(tmp_path / "absent") is None


def test_threads_follow_the_cores_that_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    use = [CoreUse(0.0, 0.0, 0.0)]
    monkeypatch.setattr(module, "core_use", lambda: use[0])
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("time.monotonic", lambda: use[0].wall_s)
    fitted, counts = FittedThreads(), []
    # A busy process takes two thirds of a core, then all that is left to it, then it ends.
    for wall_s, busy_s, own_s in (
        (0.1, 0, 0),
        (1, 2, 1.34),
        (2, 4, 2.34),
        (2.2, 4, 2),
        (3, 4.5, 3),
    ):
        use[0] = CoreUse(wall_s, busy_s, own_s)
        with fitted():
            counts.append(torch.get_num_threads())
        assert torch.get_num_threads() == 2
    assert counts == [2, 1, 1, 1, 2]


def test_a_number_of_threads_that_is_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(module, "core_use", lambda: pytest.fail("looked at the cores"))
    with FittedThreads()() as threads:
        assert threads == torch.get_num_threads() == 2
