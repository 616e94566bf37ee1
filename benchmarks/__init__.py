# SPDX-License-Identifier: Apache-2.0
"""Measurements and proofs that are run from the checkout and not installed."""

from labeldistill_core.spinning import bound_spinning

# As the commands and the node do before they import torch, so that their speed is measured.
bound_spinning()
