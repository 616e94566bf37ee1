# SPDX-License-Identifier: Apache-2.0
"""A training step of each stage."""
