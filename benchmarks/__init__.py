# SPDX-License-Identifier: Apache-2.0
"""Measurements and proofs that are run from the checkout and not installed."""
