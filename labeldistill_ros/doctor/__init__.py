# SPDX-License-Identifier: Apache-2.0
"""Checks of a vehicle, live or in a bag, by what the node itself makes of its messages."""
