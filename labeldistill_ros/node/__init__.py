# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node: wiring, session, intake, worker, health."""
