# SPDX-License-Identifier: Apache-2.0
"""One ROS package, two Python packages: `labeldistill_core` (no ROS) and `labeldistill_ros`."""

import os

from setuptools import find_packages, setup

NAME = "labeldistill_ros"
SHARE = os.path.join("share", NAME)

# What goes to the ROS share folder as it is, subfolders included.
SHARED_FOLDERS = ("launch", "config", "rosbags")

NUSCENES = ["nuscenes-devkit>=1.2", "matplotlib"]
# Bags are written by classes over rosbags' writers, which its documentation does not promise: a
# new minor version is taken when tests/ros/bags/test_storage.py passes with it. It decompresses
# with backports.zstd, the library mcap with zstandard. Recovery reads lz4 chunks and SQLite pages.
BAGS = ["rosbags>=0.11.9,<0.12", "mcap>=1.2", "zstandard", "backports.zstd", "lz4", "apsw"]
BAGS += ["opencv-python-headless>=4.5"]  # rectifies images
TRAIN = ["lightning>=2.5", "tensorboard"]
SYNTHETIC = ["embreex", *NUSCENES]
SPCONV = ("cu118", "cu126")
ONNX = ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5"]
DEV = [
    "check-jsonschema",
    "griffelib>=2",
    "hypothesis",
    "mypy",
    # With 9.2 the groups of pytest-xdist are lost: workers share out the tests in real time.
    "pytest>=8,<9.2",
    "pytest-xdist>=3.6",
    "ruff",
    "types-PyYAML",
]


def shared_files() -> list[tuple[str, list[str]]]:
    """Every file of the shared folders, beside the folder that it is installed to."""
    return [
        (os.path.join(SHARE, folder), [os.path.join(folder, name) for name in sorted(names)])
        for top in SHARED_FOLDERS
        for folder, _, names in os.walk(top)
        if names and "__pycache__" not in folder
    ]


setup(
    name=NAME,
    version="0.1.0",
    description="Camera-only 3D object detection for ROS 2, trained by label distillation.",
    long_description="See README.md.",
    license="Apache-2.0",
    maintainer="LabelDistill for ROS 2",
    maintainer_email="labeldistill@users.noreply.github.com",
    packages=find_packages(include=["labeldistill_core*", "labeldistill_ros*"]),
    package_data={
        "labeldistill_core": ["py.typed", "visualization/page.html"],
        "labeldistill_ros": ["py.typed"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (SHARE, ["package.xml"]),
        *shared_files(),
    ],
    python_requires=">=3.10,<3.13",
    install_requires=[
        "cattrs>=23.2",
        "filelock>=3.12",
        "jinja2>=3.1",
        "markupsafe>=2.1",
        "msgspec>=0.18",
        "numpy>=1.22,<2",
        "pillow>=10.1",
        "PyYAML",
        "safetensors",
        "simplejpeg>=1.8",
        "torch>=2.6",
        "torchvision>=0.21",
        "tqdm",
        "typing_extensions>=4.4",
        "tyro",
    ],
    extras_require={
        "nuscenes": NUSCENES,
        "bags": BAGS,
        "train": TRAIN,
        "synthetic": SYNTHETIC,
        "onnx": ONNX,
        **{f"spconv-{cuda}": [f"spconv-{cuda}>=2.3"] for cuda in SPCONV},
        "dev": DEV,
        "all": NUSCENES + BAGS + TRAIN + SYNTHETIC + ONNX + DEV,
    },
    entry_points={
        "console_scripts": [
            "labeldistill = labeldistill_ros.entry:command",
            "detector_node = labeldistill_ros.entry:node",
        ],
    },
    zip_safe=False,
)
