# SPDX-License-Identifier: Apache-2.0
"""LabelDistill: camera-only 3D object detection, its training and its streaming detector.

Nothing here imports ROS; `labeldistill_ros` puts this package on topics. What `__all__` names is
the public API; everything else may change between releases.

A detector takes sets of images in the order of time and gives boxes. With an image (height, width,
3), a `CameraCalibration` by camera and the vehicle's pose, `map_from_ego`:

```python
from labeldistill_core import CameraView, Detector, FrameSet, demo_model

detector = Detector.load(demo_model())  # or the file of your own student
views = [CameraView(calibrations[name], stamp_ns, images[name], map_from_ego) for name in images]
found = detector.detect(FrameSet(stamp_ns, tuple(views)))
print(found.boxes.centers, found.boxes.scores)  # metres in the vehicle's frame, 0 to 1
```

`examples/detect_images.py` is a whole program.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labeldistill_core.boxes import Boxes3D
    from labeldistill_core.cameras import CAMERAS, CameraCalibration, CameraView, FrameSet
    from labeldistill_core.classes import CLASSES
    from labeldistill_core.data.images import decode_jpeg
    from labeldistill_core.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        LabelDistillError,
    )
    from labeldistill_core.frames import Transform
    from labeldistill_core.installed_files import demo_model
    from labeldistill_core.runtime.detector import Detections, Detector
    from labeldistill_core.visualization.pictures import birds_eye_view, camera_mosaic

__all__ = [
    "CAMERAS",
    "CLASSES",
    "Boxes3D",
    "CameraCalibration",
    "CameraView",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Detections",
    "Detector",
    "FrameSet",
    "LabelDistillError",
    "Transform",
    "birds_eye_view",
    "camera_mosaic",
    "decode_jpeg",
    "demo_model",
]

_MODULES = {
    "Boxes3D": "boxes",
    "CAMERAS": "cameras",
    "CLASSES": "classes",
    "CameraCalibration": "cameras",
    "CameraView": "cameras",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "Detections": "runtime.detector",
    "Detector": "runtime.detector",
    "FrameSet": "cameras",
    "LabelDistillError": "errors",
    "Transform": "frames",
    "birds_eye_view": "visualization.pictures",
    "camera_mosaic": "visualization.pictures",
    "decode_jpeg": "data.images",
    "demo_model": "installed_files",
}

# Torch takes seconds to import: it waits for the first name that needs it. A type checker reads
# the imports above instead and still finds names that do not exist.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import the module of a public name when it is first asked for."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return value

    def __dir__() -> list[str]:
        """All public names, imported or not."""
        return sorted({*globals(), *__all__})
