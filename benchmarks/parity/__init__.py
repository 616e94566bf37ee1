# SPDX-License-Identifier: Apache-2.0
"""The network against recordings of the published code, stage by stage."""
