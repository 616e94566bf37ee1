# SPDX-License-Identifier: Apache-2.0
"""Pictures of a world through a calibrated pinhole camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labeldistill_core.cameras import CameraCalibration, CameraPose
from labeldistill_core.synthetic.light import Light
from labeldistill_core.synthetic.meshes import Floats, Ints, Texture
from labeldistill_core.synthetic.raycast import CLUTTER, Snapshot

_NOISE_SIZE = 64
# One table each for all worlds: what differs is where they are looked up.
_NOISE: Floats = (
    np.random.default_rng(20).random((_NOISE_SIZE,) * 3, dtype=np.float32) - 0.5
).ravel()
_GRAIN: Floats = np.random.default_rng(21).standard_normal(1 << 21, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Picture:
    """An image and what is in it."""

    image: NDArray[np.uint8]
    """(height, width, 3) RGB."""
    depth_m: Floats
    """(height, width) along the optical axis; infinite in the sky."""
    objects: Ints
    """(height, width) index into the world's actors, `CLUTTER` elsewhere."""


def take_picture(
    snapshot: Snapshot,
    pose: CameraPose,
    light: Light,
    rng: np.random.Generator,
    rays: Floats | None = None,
) -> Picture:
    """Render what a camera sees.

    Pixel (u, v) is the ray through the point (u, v) of the image plane, as the calibration has it.

    Args:
        snapshot: the world at the time of exposure.
        pose: calibration and pose of the camera.
        light: of the scene.
        rng: for the sensor's noise.
        rays: (height * width, 3) of length 1 along the optical axis, where a lens bends them;
            those of the calibration's pinhole when None.
    """
    map_from_camera = pose.fixed_from_ego @ pose.calibration.ego_from_camera
    # Rays of length 1 along the optical axis: distance is depth.
    if rays is None:
        rays = _pixel_rays(pose.calibration)
    directions = rays @ map_from_camera.rotation.T.astype(np.float32)
    origin = (map_from_camera.translation - snapshot.geometry.origin).astype(np.float32)

    hits = snapshot.cast(np.broadcast_to(origin, directions.shape), directions)
    seen = hits.mask
    # The sky has no surface to shade.
    color = np.empty_like(directions)
    color[~seen] = _sky(directions[~seen], light)
    triangles, depth = hits.triangles[seen], hits.distances_m[seen]
    points = origin + directions[seen] * depth[:, None]
    color[seen] = _surface(snapshot, points, directions[seen], triangles, depth, light)

    depth_map = np.full(len(seen), np.inf, np.float32)
    depth_map[seen] = depth
    objects = np.full(len(seen), CLUTTER, np.int32)
    objects[seen] = snapshot.geometry.objects[triangles]
    shape = (pose.calibration.height_px, pose.calibration.width_px)
    image = _develop(color.reshape(*shape, 3), light, rng)
    return Picture(image, depth_map.reshape(shape), objects.reshape(shape))


def _pixel_rays(calibration: CameraCalibration) -> Floats:
    """(height * width, 3) in the camera's frame."""
    (fx, skew, cx), (_, fy, cy), _ = calibration.intrinsics_px
    v = np.repeat((np.arange(calibration.height_px) - cy) / fy, calibration.width_px)
    u = np.tile(np.arange(calibration.width_px) - cx, calibration.height_px)
    rays: Floats = np.stack([(u - skew * v) / fx, v, np.ones_like(v)], axis=1).astype(np.float32)
    return rays


def _sky(directions: Floats, light: Light) -> Floats:
    up = directions[:, 2] / np.linalg.norm(directions, axis=1)
    share = np.sqrt(np.clip(up, 0, 1))[:, None]
    horizon, zenith = np.array(light.horizon, np.float32), np.array(light.sky, np.float32)
    sky: Floats = (horizon + share * (zenith - horizon)).astype(np.float32)
    return sky


def _surface(
    snapshot: Snapshot,
    points: Floats,
    directions: Floats,
    triangles: Ints,
    depth: Floats,
    light: Light,
) -> Floats:
    normals = snapshot.normals[triangles]
    # Meshes are open here and there: a surface is lit on the side from which it is seen.
    facing = np.sign(-np.einsum("ij,ij->i", normals, directions))[:, None]
    normals = normals * facing
    albedo = snapshot.geometry.colors[triangles] * _texture(snapshot, points, normals, triangles)
    sun = np.array(light.sun, np.float32)
    cosine = np.clip(normals @ sun, 0, None)
    # Shadow rays are cast only where the sun could shine at all, lifted off the surface so that it
    # does not shade itself.
    bright = cosine > 0
    bright[bright] = snapshot.lit(points[bright] + 0.02 * normals[bright], sun)
    # The sky lights what looks up more than what looks down.
    diffuse = light.ambient * (0.75 + 0.25 * normals[:, 2]) + light.sun_strength * cosine * bright
    color = albedo * diffuse[:, None]
    clear = np.exp(-depth / light.haze_m)[:, None]
    out: Floats = color * clear + np.array(light.horizon, np.float32) * 0.6 * (1 - clear)
    return out


def _texture(snapshot: Snapshot, points: Floats, normals: Floats, triangles: Ints) -> Floats:
    """Factor (N, 1) on the albedo."""
    kind, owner = snapshot.geometry.textures[triangles], snapshot.geometry.objects[triangles]
    # Patterns repeat every 8 periods of the noise, so that float32 keeps its decimals far from the
    # origin.
    local = points + snapshot.geometry.origin.astype(np.float32) % (_NOISE_SIZE * 8)
    moving = owner != CLUTTER
    if moving.any():  # a pattern must travel with its object
        poses = snapshot.poses.astype(np.float32)[owner[moving]]
        offset = points[moving] - poses[:, :3]
        c, s = np.cos(poses[:, 3]), np.sin(poses[:, 3])
        local[moving] = np.column_stack(
            [
                offset[:, 0] * c + offset[:, 1] * s,
                offset[:, 1] * c - offset[:, 0] * s,
                offset[:, 2] + 7.0 * owner[moving],
            ]
        )
    strength = np.array([0.10, 0.30, 0.9, 0.25, 0.35], np.float32)[kind]
    frequency = np.array([3.0, 6.0, 3.0, 2.0, 4.0], np.float32)[kind]
    # Two octaves: fine grain, and patches that are seen from far away.
    factor = 1 + strength * (_noise(local * frequency[:, None]) + 0.7 * _noise(local * 0.37))
    facade = (kind == Texture.FACADE) & (np.abs(normals[:, 2]) < 0.5)
    if facade.any():
        at, normal = local[facade], normals[facade]
        along = at[:, 0] * normal[:, 1] - at[:, 1] * normal[:, 0]
        # Windows at a grid of 3.1 m by 3.2 m, about a room and a floor.
        window = (along % 3.1 > 1.3) & (at[:, 2] % 3.2 > 1.2)
        factor[facade] *= np.where(window, 0.35, 1.0).astype(np.float32)
    out: Floats = factor[:, None]
    return out


def _noise(points: Floats) -> Floats:
    i, j, k = (np.floor(points).astype(np.int32) & (_NOISE_SIZE - 1)).T
    out: Floats = _NOISE[(i * _NOISE_SIZE + j) * _NOISE_SIZE + k]
    return out


def _develop(color: Floats, light: Light, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Lens, sensor and gamma."""
    color = _blur(color * light.exposure, light.blur_px)
    # The network learns from gamma-coded images, as cameras deliver them.
    signal = np.clip(color, 0, 1) ** (1 / 2.2)
    # A random piece of one long stream of normal noise, instead of a draw for each pixel.
    start = int(rng.integers(len(_GRAIN)))
    grain = np.take(_GRAIN, np.arange(start, start + signal.size), mode="wrap")
    signal += grain.reshape(signal.shape) * light.noise
    return np.asarray(np.clip(signal * 255 + 0.5, 0, 255), np.uint8)


def _blur(image: Floats, sigma_px: float) -> Floats:
    """Separable three-tap filter of a given standard deviation (up to 0.8 px)."""
    side = sigma_px**2 / 2
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[1:-1] * (1 - 2 * side) + (padded[:-2] + padded[2:]) * side
    out: Floats = rows[:, 1:-1] * (1 - 2 * side) + (rows[:, :-2] + rows[:, 2:]) * side
    return out
