# SPDX-License-Identifier: Apache-2.0
"""What images cost before the network: resizing, raw encodings, decoding, training samples."""
