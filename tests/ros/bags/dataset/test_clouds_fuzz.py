# SPDX-License-Identifier: Apache-2.0
"""Any layout of any cloud: finite points, or a reason."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from labeldistill_core.errors import DataError
from labeldistill_ros.bags.dataset.clouds import scan_points
from tests.support.fuzzing import fuzz

NAMES = ("x", "y", "z", "intensity", "ring", "reflectivity", "t", "")
COUNTS = st.sampled_from([0, 1, 2, 5, 2**16, 2**32 - 1]) | st.integers(0, 40)
FIELDS = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.integers(0, 24) | st.sampled_from([2**31, 2**32 - 1]),
        st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8]) | st.integers(0, 255),
    ),
    max_size=4,
)
PLACES = st.tuples(*(st.tuples(st.just(n), st.integers(0, 16), st.integers(1, 8)) for n in "xyz"))


@fuzz(400)
@given(
    places=PLACES,
    others=FIELDS,
    shape=st.tuples(COUNTS, COUNTS, COUNTS, COUNTS),
    data=st.binary(max_size=600),
    fits=st.booleans(),
    big=st.booleans(),
)
def test_any_cloud(
    places: tuple[tuple[str, int, int], ...],
    others: list[tuple[str, int, int]],
    shape: tuple[int, int, int, int],
    data: bytes,
    fits: bool,
    big: bool,
) -> None:
    width, height, point_step, row_step = shape
    if fits:  # as it is to be, so that values are reached
        point_step, height = 24, 1
        width = len(data) // point_step
        row_step = width * point_step
    fields = [
        SimpleNamespace(name=name, offset=offset, datatype=kind, count=1)
        for name, offset, kind in (*places, *others)
    ]
    cloud = SimpleNamespace(
        fields=fields, width=width, height=height, point_step=point_step, row_step=row_step,
        is_bigendian=big, data=np.frombuffer(data, np.uint8),
    )  # fmt: skip
    try:
        points = scan_points(cloud)
    except DataError:
        return
    assert points.shape[1:] == (5,)
    assert len(points) <= width * height
    assert np.isfinite(points).all()
