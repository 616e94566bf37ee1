# SPDX-License-Identifier: Apache-2.0
"""Any transforms in any order: a rigid pose, or an error that names the frames; nothing grows."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from labeldistill_core.frames import Transform
from labeldistill_ros.inputs.transforms import TransformBuffer, TransformError
from tests.support.fuzzing import fuzz

S = 1_000_000_000
FRAMES = st.sampled_from(("map", "odom", "base_link", "camera")) | st.sampled_from(
    ("", "/map", "map ", "\x1b[2J", "x" * 300, "é😀", "a\nb")
)
STAMPS = st.integers(-2 * S, 30 * S) | st.sampled_from((0, -(2**31) * S, (2**31 - 1) * S))
ODD = st.floats() | st.sampled_from((0.0, 1.0, 1e308, -1e308, 5e-324, math.nan, math.inf))
TURNS = st.sampled_from(((1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), (0.5, 0.5, -0.5, 0.5)))
PLACES = st.tuples(*[st.floats(-1e4, 1e4)] * 3)
EDGES = st.tuples(
    FRAMES,
    FRAMES,
    STAMPS,
    TURNS | st.tuples(*[ODD] * 4),
    PLACES | st.tuples(*[ODD] * 3),
    st.booleans(),
)
ASKED = st.tuples(FRAMES, FRAMES, STAMPS)


@fuzz(150)
@given(edges=st.lists(EDGES, max_size=25), asked=st.lists(ASKED, min_size=1, max_size=4))
@example(
    edges=[("map", "odom", 0, (1.0, 0.0, 0.0, 0.0), (1e308, 0.0, 0.0), False)]
    + [("map", "odom", 2 * S, (1.0, 0.0, 0.0, 0.0), (-1e308, 0.0, 0.0), False)],
    asked=[("map", "odom", S)],
)
def test_any_transforms(
    edges: list[
        tuple[
            str,
            str,
            int,
            tuple[float, float, float, float],
            tuple[float, float, float],
            bool,
        ]
    ],
    asked: list[tuple[str, str, int]],
) -> None:
    told: list[str] = []
    buffer = TransformBuffer(tell=told.append)
    for parent, child, stamp_ns, wxyz, xyz, static in edges:
        buffer.add(parent, child, stamp_ns, wxyz, xyz, static=static)
    assert len(told) <= len(edges)
    for target, source, stamp_ns in asked:
        try:
            found = buffer.lookup(target, source, stamp_ns)
        except TransformError as error:
            told.append(str(error))
            continue
        assert isinstance(found, Transform)
        assert (found.target, found.source) == (target, source)
        assert np.isfinite(found.matrix).all()
        np.testing.assert_allclose(found.rotation @ found.rotation.T, np.eye(3), atol=1e-6)
    for text in told:
        assert text.isprintable(), text
        assert len(text) < 2000
