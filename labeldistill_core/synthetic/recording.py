# SPDX-License-Identifier: Apache-2.0
"""One scene driven, seen by all sensors, and written as files and table rows in nuScenes form."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from labeldistill_core.data.tables.writing import Rows, SceneRows
from labeldistill_core.files import write_whole
from labeldistill_core.synthetic.annotating import Annotator
from labeldistill_core.synthetic.driven import DrivenScene, SceneSettings
from labeldistill_core.synthetic.meshes import Floats
from labeldistill_core.synthetic.rig import KEY_FRAME_PERIOD_S, LIDAR, LIDAR_PERIOD_S

_MAP_PX_PER_M = 10  # as nuScenes' own masks


def record_scene(settings: SceneSettings, root: Path) -> Rows:
    """Drive a scene, write its images, scans and map, and return its rows of the tables.

    Args:
        settings: of the scene.
        root: data root.
    """
    return _Recording(settings, root).run()


class _Recording:
    def __init__(self, settings: SceneSettings, root: Path) -> None:
        self._settings, self._root = settings, root
        self._driven = DrivenScene(settings)
        self._rows = SceneRows(settings.name, settings.seed)
        self._annotator = Annotator(self._driven, self._rows)

    def run(self) -> Rows:
        settings, rows = self._settings, self._rows
        samples = rows.add_samples(
            self._driven.stamp_us(k * KEY_FRAME_PERIOD_S) for k in range(settings.key_frames)
        )
        rows.describe(
            samples,
            self._write_map(),
            description="A street of the synthetic world.",
            vehicle="synthetic",
            date_captured="2020-09-13",
            location="synthetic-street",
        )
        rig = self._driven.rig
        for name, camera in rig.calibrations.items():
            rows.mount(name, camera.ego_from_camera, camera.intrinsics_px)
        rows.mount(LIDAR, rig.ego_from_lidar, None)
        for k, sample in enumerate(samples):
            self._annotator.annotate(k, sample, self._record_lidar(k, sample))
            self._record_cameras(k, sample)
        rows.link_data()
        self._annotator.finish()
        return rows.tables

    def _times(
        self, k: int, phase_s: float, rate_hz: float, sweeps: bool
    ) -> list[tuple[float, bool]]:
        """Times of a sensor from a key frame to before the next, and whether it is the key's."""
        # The exposure nearest to the key frame, of a camera that need not expose at each.
        first, following = (round(n * KEY_FRAME_PERIOD_S * rate_hz) for n in (k, k + 1))
        key_s = k * KEY_FRAME_PERIOD_S + phase_s
        key_s += first / rate_hz - k * KEY_FRAME_PERIOD_S
        last = k == self._settings.key_frames - 1
        # Behind the last key frame no sweep is recorded, as in nuScenes.
        count = following - first if sweeps and not last else 1
        return [(key_s + i * (1 / rate_hz), i == 0) for i in range(count)]

    def _record_lidar(self, k: int, sample: str) -> Floats:
        sweeps = self._settings.sweeps != "none"
        for time_s, is_key in self._times(k, 0.0, 1 / LIDAR_PERIOD_S, sweeps):
            points = self._driven.points(time_s)
            self._write(LIDAR, sample, time_s, is_key, "pcd.bin", points.tobytes())
            if is_key:
                key = points
        return key

    def _record_cameras(self, k: int, sample: str) -> None:
        sweeps = self._settings.sweeps == "all"
        for camera in self._driven.rig.cameras:
            for time_s, is_key in self._times(k, camera.phase, camera.rate, sweeps):
                jpeg = self._driven.jpeg(camera.name, time_s)
                self._write(camera.name, sample, time_s, is_key, "jpg", jpeg, camera.size)

    def _write(
        self,
        sensor: str,
        sample: str,
        time_s: float,
        is_key: bool,
        ending: str,
        data: bytes,
        size_px: tuple[int, int] = (0, 0),
    ) -> None:
        stamp = self._driven.stamp_us(time_s)
        folder = f"{'samples' if is_key else 'sweeps'}/{sensor}"
        # The pattern of nuScenes, out of which tools read sensor and time.
        name = f"{folder}/{self._settings.name}__{sensor}__{stamp}.{ending}"
        write_whole(self._root / name, data)
        ego = self._driven.map_from_ego(time_s)
        self._rows.add_file(sensor, sample, stamp, ego, name, is_key=is_key, size_px=size_px)

    def _write_map(self) -> str:
        """The street as a mask, in nuScenes' orientation (north up, origin bottom left)."""
        road = self._driven.road
        s = np.arange(0.0, road.length_m, 1.0)
        left, right = (road.place(s, np.full(len(s), d))[0] for d in _both(road.half_width_m))
        outline = np.concatenate([left, right[::-1]]) * _MAP_PX_PER_M
        width, height = (np.ceil(outline.max(axis=0)) + 50 * _MAP_PX_PER_M).astype(int).tolist()
        mask = Image.new("1", (width, height))
        ImageDraw.Draw(mask).polygon([(x, height - y) for x, y in outline.tolist()], fill=1)
        name = f"maps/{self._rows.token('map')}.png"
        png = io.BytesIO()
        mask.save(png, "PNG")
        write_whole(self._root / name, png.getvalue())
        return name


def _both(distance: float) -> tuple[float, float]:
    return distance, -distance
