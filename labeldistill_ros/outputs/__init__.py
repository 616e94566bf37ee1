# SPDX-License-Identifier: Apache-2.0
"""What goes out: publishers, markers, overlays, Autoware objects."""
