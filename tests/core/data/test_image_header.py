# SPDX-License-Identifier: Apache-2.0
"""Images are recognized, measured and bounded by their first bytes."""

from __future__ import annotations

import contextlib
import io
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from labeldistill_core.data.image_header import check_header, read_header
from labeldistill_core.data.images import decode_jpeg
from labeldistill_core.data.nuscenes_records import size_of_image
from labeldistill_core.errors import DataError
from tests.support.fuzzing import fuzz

POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 160 90\n%%EndComments\n(%pipe%id) (w) file\n"
)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    """A JPEG whose head claims another size."""
    at = next(i for i in range(len(jpeg)) if jpeg[i : i + 2] in (b"\xff\xc0", b"\xff\xc2"))
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    ("form", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"exif": b"Exif" * 900}), ("PNG", {})],
)
def test_form_size_and_channels(mode: str, form: str, options: dict[str, object]) -> None:
    header = read_header(encoded(Image.new(mode, (37, 21)), form, **options))
    assert (header.form, header.width_px, header.height_px) == (form.lower(), 37, 21)
    assert (header.bits, header.channels) == (8, len(mode))


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA"])
def test_other_formats_reach_no_decoder(form: str) -> None:
    with pytest.raises(DataError, match="neither a JPEG nor a PNG"):
        decode_jpeg(encoded(Image.new("RGB", (16, 16)), form))


def test_postscript_starts_no_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a process began"))
    with pytest.raises(DataError, match="neither a JPEG nor a PNG"):
        decode_jpeg(POSTSCRIPT)
    (tmp_path / "image.jpg").write_bytes(POSTSCRIPT)
    assert size_of_image(tmp_path / "image.jpg") == (0, 0)


@pytest.mark.real_time
def test_an_image_that_claims_a_huge_size_is_refused_at_once() -> None:
    jpeg = encoded(Image.new("L", (64, 64)), "JPEG")
    start_s = time.perf_counter()
    with pytest.raises(DataError, match="is 65000 x 65000 pixels, and 67 million"):
        decode_jpeg(with_size(jpeg, 65_000, 65_000))
    with pytest.raises(DataError, match="is 14000 x 100 pixels, its camera_info says 1600 x 900"):
        check_header(with_size(jpeg, 14_000, 100), (1600, 900))
    with pytest.raises(DataError, match="camera_info says 8192 x 8192 pixels, and 33 million are"):
        check_header(with_size(jpeg, 8192, 8192), (8192, 8192))
    assert check_header(jpeg, (7680, 4320)).width_px == 64
    size = struct.pack(">IIBBBBB", 1 << 30, 1 << 30, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + size
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    with pytest.raises(DataError, match="is 1073741824 x 1073741824 pixels"):
        decode_jpeg(png + struct.pack(">I", zlib.crc32(chunk)))
    assert time.perf_counter() - start_s < 1.0


def test_a_progressive_jpeg_with_a_thousand_scans_is_refused() -> None:
    jpeg = encoded(Image.effect_noise((64, 64), 50), "JPEG", progressive=True)
    assert decode_jpeg(jpeg).shape == (64, 64, 3)
    at = jpeg.rindex(b"\xff\xda")
    bomb = jpeg[:at] + jpeg[at:-2] * 1000 + b"\xff\xd9"
    with pytest.raises(DataError, match="scans of 64 x 64 pixels"):
        decode_jpeg(bomb)
    with pytest.raises(DataError, match="scans of 8000 x 8000 pixels"):
        decode_jpeg(with_size(jpeg, 8000, 8000))


def test_sixteen_bits_are_scaled_and_twelve_refused() -> None:
    ramp = np.linspace(0, 65_535, 160 * 90).reshape(90, 160).astype(np.uint16)
    pixels = decode_jpeg(encoded(Image.fromarray(ramp), "PNG"))
    np.testing.assert_array_equal(pixels, np.repeat((ramp >> 8)[..., None], 3, axis=2))
    jpeg = bytearray(encoded(Image.new("L", (8, 8)), "JPEG"))
    jpeg[jpeg.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(DataError, match="12 bits a colour"):
        decode_jpeg(bytes(jpeg))


@fuzz(100)
@given(st.sampled_from((b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")), st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(start: bytes, rest: bytes) -> None:
    with contextlib.suppress(DataError):
        check_header(start + rest)
