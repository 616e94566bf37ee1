# SPDX-License-Identifier: Apache-2.0
"""Build the message packages of `interfaces/` into the running virtual environment.

The ROS 2 wheels carry the rosidl generators, but neither `vision_msgs` nor `tf2_msgs`. This script
configures, compiles and installs both with CMake, so that they import like the wheels' own
messages. It is run by `make setup`; a machine with a ROS distribution never needs it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy

PREFIX = Path(sys.prefix)
INTERFACES = Path(__file__).resolve().parent.parent / "interfaces"
PACKAGES = ("vision_msgs", "tf2_msgs")

# The exported CMake targets of the wheels name the prefix of the machine that built the wheels.
WHEEL_PREFIX = r"/opt/python/cp3\d+-cp3\d+"
REPLACEMENTS = (
    (re.compile(WHEEL_PREFIX + r"/include/python3\.\d+"), sysconfig.get_path("include")),
    (
        re.compile(WHEEL_PREFIX + r"/lib/python3\.\d+/site-packages/numpy/_?core/include"),
        numpy.get_include(),
    ),
    (re.compile(WHEEL_PREFIX), str(PREFIX)),
)


def relocate_cmake_exports(share: Path) -> int:
    """Replace the build machine's paths in the wheels' CMake files; return how many changed."""
    changed = 0
    for path in share.rglob("*.cmake"):
        text = path.read_text()
        relocated = text
        for pattern, replacement in REPLACEMENTS:
            relocated = pattern.sub(lambda _, new=replacement: new, relocated)
        if relocated != text:
            path.write_text(relocated)
            changed += 1
    return changed


def build(package: str, build_root: Path) -> None:
    """Configure, compile and install one interface package into the environment."""
    cmake = str(PREFIX / "bin" / "cmake")
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in {"PYTHONPATH", "CMAKE_PREFIX_PATH", "COLCON_PREFIX_PATH"}
    }
    environment["AMENT_PREFIX_PATH"] = str(PREFIX)
    environment["PATH"] = f"{PREFIX / 'bin'}{os.pathsep}{environment.get('PATH', os.defpath)}"
    configure = [
        *(cmake, "-S", str(INTERFACES / package), "-B", str(build_root / package)),
        *("-G", "Ninja", "-Wno-dev", "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_TESTING=OFF"),
        *(f"-DCMAKE_PREFIX_PATH={PREFIX}", f"-DCMAKE_INSTALL_PREFIX={PREFIX}"),
        *(f"-DPython3_EXECUTABLE={sys.executable}", "-DPython3_FIND_VIRTUALENV=ONLY"),
    ]
    install = [cmake, "--build", str(build_root / package), "--target", "install"]
    for command in (configure, install):
        result = subprocess.run(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if result.returncode != 0:
            sys.exit(f"{result.stdout}\n{package}: this command failed: {' '.join(command)}")


def main() -> None:
    """Build every interface package, then import it the way a user would."""
    if sys.prefix == sys.base_prefix:
        sys.exit("Run this with the Python of the virtual environment: `make setup` does.")
    if shutil.which("c++") is None or shutil.which("cc") is None:
        sys.exit(
            "No C and C++ compiler (cc, c++): the message packages need one, for instance "
            "`apt-get install g++`. Then call `make setup` again."
        )
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        sys.exit(
            f"No Python.h in {sysconfig.get_path('include')}: install Python's headers, for "
            "instance `apt-get install python3-dev`. Then call `make setup` again."
        )
    relocate_cmake_exports(PREFIX / "share")
    build_root = PREFIX / "build-interfaces"
    shutil.rmtree(build_root, ignore_errors=True)
    for package in PACKAGES:
        build(package, build_root)
        subprocess.run([sys.executable, "-c", f"import {package}.msg"], check=True)
        print(f"built {package}")
    shutil.rmtree(build_root)


if __name__ == "__main__":
    main()
