# SPDX-License-Identifier: Apache-2.0
"""The order of samples, a function of seed and epoch alone, so that a run can be taken up."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


def seed_of(*numbers: int) -> int:
    """One seed from several numbers, the same in every process and release of Python.

    Python's own `hash` promises neither.
    """
    digest = hashlib.blake2b(" ".join(map(str, numbers)).encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "big") >> 1  # torch takes 63 bits


class EpochOrder(Sampler[tuple[int, int]]):
    """Pairs of a sample's index and the seed of its augmentation, for one process."""

    def __init__(
        self, indices: Sequence[int], batch: int, seed: int, rank: int = 0, processes: int = 1
    ) -> None:
        """Cover `indices` in each epoch, but for what does not fill a batch of all processes.

        Args:
            indices: of the samples; one may come several times.
            batch: samples a step and process.
            seed: of order and augmentation.
            rank: of this process.
            processes: that share an epoch.
        """
        self._indices = torch.as_tensor(indices, dtype=torch.int64)
        self._batch, self._seed, self._rank, self._processes = batch, seed, rank, processes
        self._epoch, self._skipped = 0, 0

    @property
    def steps(self) -> int:
        """Batches that one process draws in an epoch."""
        return len(self._indices) // (self._batch * self._processes)

    def start_at(self, step: int, accumulate: int = 1) -> None:
        """Let the next epoch begin behind the batches that a run of `step` steps has seen.

        Args:
            step: of the optimizer.
            accumulate: batches a step; the last step of an epoch may have fewer.
        """
        # Divided by the steps of a whole epoch, whose last one may have been made of fewer batches.
        self._epoch, done = divmod(step, -(-self.steps // accumulate))
        self._skipped = done * accumulate * self._batch

    def set_epoch(self, epoch: int) -> None:
        """The epoch that comes next."""
        if epoch != self._epoch:
            self._epoch, self._skipped = epoch, 0

    def __len__(self) -> int:
        """Samples of a whole epoch in this process."""
        return self.steps * self._batch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Pairs of sample index and augmentation seed, for one epoch of this process."""
        # A function of seed and epoch alone: a run that is taken up draws what it would have drawn.
        generator = torch.Generator().manual_seed(seed_of(self._seed, self._epoch))
        order = torch.randperm(len(self._indices), generator=generator)
        seeds = torch.randint(2**62, (len(order),), generator=generator)
        # Processes take turns, so that together they see each sample once, in the order of one
        # process.
        mine = slice(self._rank, len(self) * self._processes, self._processes)
        pairs = zip(self._indices[order[mine]].tolist(), seeds[mine].tolist(), strict=True)
        skipped, self._skipped = self._skipped, 0
        yield from list(pairs)[skipped:]


def class_balanced(classes: Sequence[frozenset[str]], seed: int) -> list[int]:
    """Indices of samples, drawn so that samples with any one class are equally frequent.

    Source: CBGS (Zhu et al., 2019), class-balanced sampling.

    Args:
        classes: names that stand in each sample.
        seed: of the draw.

    Returns:
        About as many indices as all classes have samples; rare classes' samples come repeatedly.
    """
    holders: dict[str, list[int]] = {}
    for index, names in enumerate(classes):
        for name in sorted(names):
            holders.setdefault(name, []).append(index)
    total = sum(map(len, holders.values()))
    generator = torch.Generator().manual_seed(seed)
    drawn: list[int] = []
    for name in sorted(holders):
        share = round(total / len(holders))
        choice = torch.randint(len(holders[name]), (share,), generator=generator)
        drawn += [holders[name][i] for i in choice.tolist()]
    return drawn
