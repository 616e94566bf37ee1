# SPDX-License-Identifier: Apache-2.0
"""Weights into a network: all or none, and only numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from labeldistill_core.errors import CheckpointError
from labeldistill_core.names import plain_text

_LISTED = 8
"""Names that an error message lists before it only counts."""


def load_weights(network: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Copy weights into a network, all or none.

    Raises:
        CheckpointError: listing the names that are missing, unexpected, of another shape or type,
            or not finite in the network's type.
    """
    # Not torch's own `strict` loading: it stops at shapes, and neither looks at types nor at
    # values.
    wanted = network.state_dict()
    check_fit(wanted, tensors, origin)
    # All of them before any is copied, so that a network is never half replaced.
    converted = {name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()}
    if bad := not_finite(converted):
        raise CheckpointError(f"{origin} cannot be used: {bad}")
    network.load_state_dict(converted)


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """A sentence on the weights that are NaN or infinite; empty when there are none."""
    bad = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]
    if not bad:
        return ""
    return (
        f"{len(bad)} of {len(tensors)} weights are NaN or infinite ({_listed(bad)}), as after a "
        "training that diverged; take an earlier checkpoint, or train with a lower learning rate"
    )


def check_fit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], origin: str) -> None:
    """Compare names, shapes and types.

    Raises:
        CheckpointError: listing what differs.
    """
    both = [name for name in wanted if name in found]
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted]
    misshapen = [
        f"{name} is {tuple(found[name].shape)}, the network has {tuple(wanted[name].shape)}"
        for name in both
        if found[name].shape != wanted[name].shape
    ]
    # Half and double precision are the same numbers; truth values and integers are not.
    mistyped = [
        f"{name} is {found[name].dtype}, the network has {wanted[name].dtype}"
        for name in both
        if found[name].dtype != wanted[name].dtype
        and not (found[name].is_floating_point() and wanted[name].is_floating_point())
    ]
    problems = [
        f"{len(names)} {kind}: {_listed(names)}"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
            ("of another type", mistyped),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{origin} does not fit the network; is it another preset? " + "; ".join(problems)
        )


def _listed(names: list[str]) -> str:
    listed = ", ".join(plain_text(name) for name in names[:_LISTED])
    return f"{listed} ..." if len(names) > _LISTED else listed
