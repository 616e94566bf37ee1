# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms that know which frames they join, in float64.

A transform is named `target_from_source` and maps coordinates in `source` to coordinates in
`target`, so products read left to right:
`map_from_camera = map_from_ego @ ego_from_camera`.
Quaternions are (w, x, y, z), of unit length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

UNIT_TOLERANCE = 1e-3
"""Of the length of a quaternion, and of the entries of `R R^T - 1`."""
_ROUNDED = 1e-9
"""What remains of these in a rotation matrix of 64 bits."""
_IDENTITY = np.eye(3)


def matrix_from_quaternion(wxyz: ArrayLike) -> Array:
    """Rotation matrix (3, 3) of a quaternion (4,); it is normalized first.

    Raises:
        ValueError: the quaternion is not finite or its length is far from one.
    """
    q = np.asarray(wxyz, dtype=np.float64)
    # Refused where it is far off, normalized where it is near: tables are written with few digits,
    # and what is left of the length would scale all points.
    norm = float(np.linalg.norm(q))
    if q.shape != (4,) or not abs(norm - 1.0) < UNIT_TOLERANCE:
        raise ValueError(f"not a unit quaternion (w, x, y, z): {q.tolist()}")
    w, x, y, z = q / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_from_matrix(rotation: ArrayLike) -> Array:
    """Unit quaternion (4,) with w >= 0 of a rotation matrix (3, 3).

    The eigenvector form (Bar-Itzhack 2000) has no branch that is ill-conditioned.
    """
    r = np.asarray(rotation, dtype=np.float64)
    k = np.array(
        [
            [r[0, 0] + r[1, 1] + r[2, 2], 0.0, 0.0, 0.0],
            [r[2, 1] - r[1, 2], r[0, 0] - r[1, 1] - r[2, 2], 0.0, 0.0],
            [r[0, 2] - r[2, 0], r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], 0.0],
            [
                r[1, 0] - r[0, 1],
                r[0, 2] + r[2, 0],
                r[1, 2] + r[2, 1],
                r[2, 2] - r[0, 0] - r[1, 1],
            ],
        ]
    )
    # Only the lower triangle is filled, which is all that the symmetric solver reads; its
    # eigenvalues ascend, so that the last vector is that of the largest.
    q: Array = np.linalg.eigh(k, UPLO="L")[1][:, -1]
    return -q if q[0] < 0 else q


@dataclass(frozen=True, eq=False)
class Transform:
    """Rigid transform from frame `source` to frame `target`.

    Examples:
        A camera that looks ahead, 1.7 m before the vehicle's origin and 1.5 m above it:

        >>> ego_from_camera = Transform.from_quaternion(
        ...     "ego", "CAM_FRONT", (0.5, -0.5, 0.5, -0.5), (1.7, 0.0, 1.5)
        ... )
        >>> ego_from_camera.apply([0.0, 0.0, 10.0]).tolist()  # ten metres before the camera
        [11.7, 0.0, 1.5]

        Frames that do not meet are refused:

        >>> ego_from_camera @ ego_from_camera
        Traceback (most recent call last):
        ValueError: cannot compose ego_from_CAM_FRONT with ego_from_CAM_FRONT
    """

    target: str
    """Name of the frame that results."""
    source: str
    """Name of the frame that goes in."""
    rotation: Array
    """(3, 3) rotation matrix."""
    translation: Array
    """(3,) position of the source's origin in the target frame, metres."""

    def __post_init__(self) -> None:
        """Refuse anything that is not a rigid transform."""
        # Copies: whoever goes on writing into an array must not move what was made of it.
        rotation = np.array(self.rotation, dtype=np.float64)
        translation = np.array(self.translation, dtype=np.float64)
        name = f"{self.target}_from_{self.source}"
        if rotation.shape != (3, 3) or translation.shape != (3,):
            raise ValueError(f"{name}: needs a (3, 3) rotation and a (3,) translation")
        if not (np.isfinite(rotation).all() and np.isfinite(translation).all()):
            raise ValueError(f"{name}: values must be finite")
        # Loose enough for calibrations that were written with four digits.
        off = np.abs(rotation @ rotation.T - _IDENTITY).max()
        if off > UNIT_TOLERANCE:
            raise ValueError(f"{name}: the rotation matrix is not orthonormal")
        # By hand, as a set of images makes dozens of transforms: for three rows, calling
        # `np.linalg.det` costs more than the sum.
        (a, b, c), (d, e, f), (g, h, i) = rotation.tolist()
        if a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g) < 0:  # determinant
            raise ValueError(f"{name}: the matrix mirrors, it is no rotation")
        if off > _ROUNDED:  # else products would be off by more, and be refused in mid-drive
            left, _, right = np.linalg.svd(rotation)
            rotation = left @ right
        object.__setattr__(self, "rotation", rotation)
        object.__setattr__(self, "translation", translation)

    @classmethod
    def identity(cls, target: str, source: str) -> Transform:
        """The two frames coincide."""
        return cls(target, source, np.eye(3), np.zeros(3))

    @classmethod
    def from_quaternion(
        cls, target: str, source: str, wxyz: ArrayLike, translation: ArrayLike
    ) -> Transform:
        """Build from a unit quaternion (w, x, y, z) and a translation in metres."""
        return cls(target, source, matrix_from_quaternion(wxyz), np.asarray(translation))

    @classmethod
    def mean(cls, transforms: Sequence[Transform]) -> Transform:
        """Mean translation and mean rotation of transforms between the same two frames.

        The rotation is the quaternion that maximizes the summed squared dot product (Markley et
        al. 2007), which does not depend on the signs of the quaternions.

        Raises:
            ValueError: the frames differ.
        """
        first = transforms[0]
        for other in transforms[1:]:
            first._require_same_frames(other)
        q = np.stack([quaternion_from_matrix(t.rotation) for t in transforms])
        # Of cameras within 50 ms the poses differ little, but a plain mean of quaternions would
        # still depend on the arbitrary sign of each.
        mean: Array = np.linalg.eigh(q.T @ q)[1][:, -1]
        translation = np.mean([t.translation for t in transforms], axis=0)
        return cls.from_quaternion(first.target, first.source, mean, translation)

    @property
    def quaternion(self) -> Array:
        """(4,) unit quaternion (w, x, y, z) with w >= 0."""
        return quaternion_from_matrix(self.rotation)

    @property
    def matrix(self) -> Array:
        """(4, 4) homogeneous matrix."""
        out = np.eye(4)
        out[:3, :3], out[:3, 3] = self.rotation, self.translation
        return out

    @property
    def inverse(self) -> Transform:
        """`source_from_target`."""
        return Transform(
            # The transpose of a rotation is its inverse, without rounding.
            self.source,
            self.target,
            self.rotation.T,
            -self.rotation.T @ self.translation,
        )

    def __matmul__(self, other: Transform) -> Transform:
        """Compose: `a_from_b @ b_from_c` is `a_from_c`.

        Raises:
            ValueError: the inner frames differ.
        """
        if self.source != other.target:
            raise ValueError(
                f"cannot compose {self.target}_from_{self.source} "
                f"with {other.target}_from_{other.source}"
            )
        return Transform(
            self.target,
            other.source,
            self.rotation @ other.rotation,
            self.rotation @ other.translation + self.translation,
        )

    def apply(self, points: ArrayLike) -> Array:
        """Points (..., 3) in the source frame, metres, to the target frame."""
        moved: Array = np.asarray(points, dtype=np.float64) @ self.rotation.T + self.translation
        return moved

    def interpolate(self, other: Transform, fraction: float) -> Transform:
        """Between this transform (fraction 0) and another of the same frames (fraction 1).

        Translation is linear, rotation spherical-linear along the shorter arc.

        Raises:
            ValueError: the frames differ.
        """
        self._require_same_frames(other)
        q0, q1 = self.quaternion, other.quaternion
        dot = float(q0 @ q1)
        # q and -q are one rotation; of the two arcs, the shorter one.
        q1, dot = (-q1, -dot) if dot < 0 else (q1, dot)
        angle = np.arccos(min(dot, 1.0))
        if angle < 1e-6:  # sin(angle) vanishes; the chord equals the arc to rounding
            q = (1 - fraction) * q0 + fraction * q1
        else:
            q = np.sin((1 - fraction) * angle) * q0 + np.sin(fraction * angle) * q1
        translation = (1 - fraction) * self.translation + fraction * other.translation
        return Transform.from_quaternion(
            self.target, self.source, q / np.linalg.norm(q), translation
        )

    def _require_same_frames(self, other: Transform) -> None:
        if (self.target, self.source) != (other.target, other.source):
            raise ValueError(
                f"{self.target}_from_{self.source} and {other.target}_from_{other.source} join "
                "different frames"
            )
