# SPDX-License-Identifier: Apache-2.0
"""The network, one file for each box of the block diagram."""
