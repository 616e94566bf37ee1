# SPDX-License-Identifier: Apache-2.0
"""Time of day and weather, as far as cameras are concerned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labeldistill_core.synthetic.meshes import Color

Rng = np.random.Generator


@dataclass(frozen=True)
class Light:
    """What the cameras see the scene in."""

    sun: tuple[float, float, float]
    """Direction to the sun, unit length."""
    sun_strength: float
    """Strength of the direct light of the sun, as a factor on the albedo."""
    ambient: float
    """Strength of the light that comes from everywhere, as a factor on the albedo."""
    sky: Color
    """Colour of the sky at the zenith."""
    horizon: Color
    """Colour of the horizon and of the haze."""
    haze_m: float
    """Distance at which haze leaves 1/e of the contrast."""
    exposure: float
    """Factor on all light before the gamma curve."""
    noise: float
    """Standard deviation of the sensor noise, in units of full scale."""
    blur_px: float
    """Standard deviation of the blur of the lens, in pixels."""

    @classmethod
    def sample(cls, rng: Rng) -> Light:
        """Day, overcast, or dusk."""
        kind = rng.choice(["sun", "overcast", "dusk"], p=[0.5, 0.35, 0.15])
        elevation = np.radians(rng.uniform(12, 30) if kind == "dusk" else rng.uniform(25, 75))
        azimuth = rng.uniform(-np.pi, np.pi)
        sun = (
            float(np.cos(elevation) * np.cos(azimuth)),
            float(np.cos(elevation) * np.sin(azimuth)),
            float(np.sin(elevation)),
        )
        strength, ambient, sky, horizon = {
            "sun": (1.0, 0.45, (0.25, 0.45, 0.85), (0.70, 0.78, 0.88)),
            "overcast": (0.15, 0.95, (0.62, 0.65, 0.70), (0.75, 0.76, 0.78)),
            "dusk": (0.55, 0.30, (0.20, 0.24, 0.45), (0.75, 0.50, 0.38)),
        }[str(kind)]
        return cls(
            sun=sun,
            sun_strength=strength * float(rng.uniform(0.8, 1.2)),
            ambient=ambient * float(rng.uniform(0.85, 1.15)),
            sky=sky,
            horizon=horizon,
            haze_m=float(np.exp(rng.uniform(np.log(120), np.log(1500)))),
            exposure=float(rng.uniform(0.75, 1.3)),
            noise=float(rng.uniform(0.004, 0.02)),
            blur_px=float(rng.uniform(0.3, 0.7)),
        )
