# SPDX-License-Identifier: Apache-2.0
"""Weights of a checkpoint that a training starts from."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn

from labeldistill_core.checkpoints import Kind, read_checkpoint
from labeldistill_core.errors import CheckpointError
from labeldistill_core.weights import load_weights, not_finite

_LOG = logging.getLogger(__name__)
_LISTED = 20
"""Names of a kind that are told one by one."""


def load_initial(network: nn.Module, file: Path, kind: Kind, *, partial: bool) -> None:
    """Let a network begin with the weights of a checkpoint.

    Args:
        network: that is filled.
        file: checkpoint of a network of this kind.
        kind: of the network.
        partial: take the weights that fit by name and shape, of whatever configuration the file
            is, and tell of the others; they stay as they are.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind; or a weight does not fit,
            with `partial` not a single one does.
    """
    found = read_checkpoint(file, kind)
    if not partial:
        try:
            load_weights(network, found.weights(), str(file))
        except CheckpointError as error:
            raise CheckpointError(
                f"{error}; with --partial, training starts from the weights that fit"
            ) from error
        return
    wanted = network.state_dict()
    fits = {
        name
        for name, outline in found.outline.items()
        if name in wanted
        and outline.shape == wanted[name].shape
        and outline.is_floating_point() == wanted[name].is_floating_point()
    }
    if not fits:
        raise CheckpointError(
            f"{file} has no weight that fits by name and shape: start without --init"
        )
    weights = {name: tensor for name, tensor in found.weights().items() if name in fits}
    if bad := not_finite(weights):
        raise CheckpointError(f"{file} cannot be used: {bad}")
    # Copied one by one, each in the network's own number format.
    network.load_state_dict(weights, strict=False)
    _LOG.info("%s: %d of %d weights are taken", file, len(fits), len(wanted))
    misshapen = [
        f"{name} {tuple(found.outline[name].shape)} for {tuple(wanted[name].shape)}"
        for name in found.outline
        if name in wanted and name not in fits
    ]
    for what, names in (
        ("have another shape and stay as they are", misshapen),
        ("are not in the file and stay as they are", [n for n in wanted if n not in found.outline]),
        ("of the file have no place", [n for n in found.outline if n not in wanted]),
    ):
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            _LOG.warning(
                "%s: %d weights %s: %s%s", file, len(names), what, ", ".join(names[:_LISTED]), more
            )
