# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node: wiring, intake, worker, health."""
