# SPDX-License-Identifier: Apache-2.0
"""Six JPEGs and a calibration file in, boxes and a picture out.

`python examples/detect_images.py [FOLDER [PICTURE]]`; `examples/images` is such a folder. The
vehicle stands here, so that all images have one pose; one that drives gives each image its own.
"""

import json
import sys
from pathlib import Path

import tyro

from labeldistill_core import (
    CameraCalibration,
    CameraView,
    Detector,
    FrameSet,
    Transform,
    camera_mosaic,
    decode_jpeg,
    demo_model,
)
from labeldistill_core.exit_codes import exit_code


def read_views(folder: Path) -> tuple[CameraView, ...]:
    """The images of a folder, each with its calibration and the pose of a vehicle that stands."""
    views = []
    for name, camera in json.loads((folder / "calibration.json").read_text()).items():
        mount = camera["ego_from_camera"]
        ego_from_camera = Transform.from_quaternion(
            "ego", name, mount["quaternion_wxyz"], mount["translation_m"]
        )
        calibration = CameraCalibration(
            name, camera["intrinsics_px"], camera["width_px"], camera["height_px"], ego_from_camera
        )
        image = decode_jpeg((folder / camera["image"]).read_bytes())
        views.append(CameraView(calibration, 0, image, Transform.identity("map", "ego")))
    return tuple(views)


def main(
    folder: tyro.conf.Positional[Path] = Path(__file__).parent / "images",
    picture: tyro.conf.Positional[Path] = Path("out/detections.jpg"),
) -> None:
    """List the boxes that the demo's model finds, and draw them.

    Args:
        folder: with the images and their `calibration.json`.
        picture: file to draw to.
    """
    detector = Detector.load(demo_model())
    frames = FrameSet(stamp_ns=0, views=read_views(folder))
    found = detector.detect(frames)
    boxes = found.boxes[found.boxes.scores >= 0.3]
    for label, score, (x, y, _) in zip(boxes.labels, boxes.scores, boxes.centers, strict=True):
        print(f"{detector.class_names[label]:<22}{score:.2f}  {x:6.1f} m ahead, {y:6.1f} m left")
    picture.parent.mkdir(parents=True, exist_ok=True)
    camera_mosaic(frames, boxes.transformed(found.fixed_from_ego), text_px=20).save(picture)
    print(f"open {picture}")


if __name__ == "__main__":
    sys.exit(exit_code(lambda: tyro.cli(main), "detect_images.py"))
