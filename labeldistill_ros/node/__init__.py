# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node: wiring, session, intake, worker, health."""

from labeldistill_core.spinning import bound_spinning

# Here, since the node's modules import torch, and its OpenMP looks once, when it is loaded.
bound_spinning()
