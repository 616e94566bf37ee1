# SPDX-License-Identifier: Apache-2.0
"""Which instants of a drive become key frames, and how it is cut into scenes."""

import numpy as np
import pytest
from numpy.typing import NDArray

from labeldistill_ros.bags.dataset.key_frames import KeyFrame, choose_key_frames, cut


def stamps(begin_s: float, end_s: float, rate_hz: float) -> NDArray[np.int64]:
    return np.asarray(np.arange(begin_s, end_s, 1 / rate_hz) * 1e9).round().astype(np.int64)


def sets(rate_hz: float, end_s: float = 10.0) -> NDArray[np.int64]:
    """Two cameras that expose 20 ms apart, around 20 ms before a turn of a LiDAR ends."""
    first = stamps(-0.03, end_s, rate_hz)
    return np.stack([first, first + 20_000_000], axis=1)


def steps_s(frames: list[KeyFrame]) -> NDArray[np.float64]:
    return np.diff([frame.stamp_ns for frame in frames]) / 1e9


@pytest.mark.parametrize("rate_hz", [2, 10, 12, 20, 30])
def test_key_frames_come_every_half_second(rate_hz: float) -> None:
    frames = choose_key_frames(sets(rate_hz), stamps(0, 11, 20), None)
    np.testing.assert_allclose(steps_s(frames), 0.5, atol=0.051)
    # each with the scan nearest to its images
    assert all(f.scan_ns is not None for f in frames)
    assert all(abs(np.mean(f.images_ns) - f.stamp_ns) <= 25_000_000 for f in frames)


def test_slow_cameras_give_as_many_as_there_are() -> None:
    assert len(choose_key_frames(sets(1), stamps(0, 10, 20), None)) == len(sets(1))


def test_labels_say_which_instants_are_taken() -> None:
    labels = stamps(0.25, 9, 2)
    frames = choose_key_frames(sets(20), stamps(0, 10, 20), labels)
    assert [f.labels_ns for f in frames] == labels.tolist()
    assert [f.stamp_ns for f in frames] == labels.tolist()


def test_labels_without_images_are_none() -> None:
    frames = choose_key_frames(sets(10, end_s=3.0), stamps(0, 10, 20), stamps(0, 9, 2))
    assert max(f.stamp_ns for f in frames) < 3.2e9


def test_without_a_lidar_images_tell_the_time() -> None:
    frames = choose_key_frames(sets(12), None, None)
    assert all(f.stamp_ns == round(np.mean(f.images_ns)) for f in frames)


def test_a_hole_in_the_scans_is_no_hole_in_the_drive() -> None:
    scans = stamps(0, 10, 20)
    scans = scans[(scans < 4e9) | (scans > 5e9)]
    frames = choose_key_frames(sets(12), scans, None)
    without = [f.stamp_ns / 1e9 for f in frames if f.scan_ns is None]
    assert without == pytest.approx([4.5, 5.0], abs=0.05)
    assert len(cut(frames, 20)) == 1


def frames_at(*seconds: float) -> list[KeyFrame]:
    return [KeyFrame(round(s * 1e9), (), None, None) for s in seconds]


def lengths(frames: list[KeyFrame], longest_s: float) -> list[int]:
    return [len(scene) for scene in cut(frames, longest_s)]


def test_scenes_are_of_about_one_length() -> None:
    drive = frames_at(*np.arange(0, 60.5, 0.5))
    assert lengths(drive, 20) == [40, 41, 40]
    assert lengths(drive[:41], 20) == [41]  # as some scenes of nuScenes are
    assert lengths(drive[:50], 20) == [25, 25]
    assert lengths([], 20) == []


def test_a_gap_begins_another_scene() -> None:
    assert lengths(frames_at(0, 0.5, 1, 3.5, 4), 20) == [3, 2]
    assert lengths(frames_at(0, 0.5, 1, 2.5, 3), 20) == [5]
