# SPDX-License-Identifier: Apache-2.0
from labeldistill_core.data.image_header import read_header
from labeldistill_core.profiling.bench_images import CAMERA_WH, jpeg


def test_images_have_the_bytes_of_photographs() -> None:
    data = jpeg(0)
    header = read_header(data)
    assert (header.width_px, header.height_px) == CAMERA_WH
    # nuScenes' cameras: 138 kB in the mean, nine of ten between 111 and 168.
    assert 111_000 < len(data) < 168_000
    assert data == jpeg(0) != jpeg(1)
