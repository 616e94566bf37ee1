# SPDX-License-Identifier: Apache-2.0
"""Files that come along: models and settings, in a checkout or where they were installed."""

from __future__ import annotations

from pathlib import Path

from labeldistill_core.errors import ConfigError

_SHARE = Path("share") / "labeldistill_ros"
"""The share folder of the ROS package, which holds both Python packages, below its prefix."""


def shared_file(name: str) -> Path:
    """Path of a file of the share folder.

    pip and colcon install Python modules and the share folder below one prefix, whatever lies
    between (`lib/python3.11/site-packages`, `local/lib/python3.12/dist-packages`), so the prefix
    is looked for upwards of this module, not in `sys.prefix`, which is another one for
    `pip install --user` and for an overlay workspace.

    Args:
        name: path inside of it, such as `config/detector.yaml`.

    Raises:
        ConfigError: it is not there; lists where it was looked for.
    """
    package = Path(__file__).resolve().parent
    checkout = package.parent
    # The checkout first: an editable install must not read the files of an older one.
    folders = [checkout, *(prefix / _SHARE for prefix in package.parents)]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(
        f"no file {name} in {', '.join(map(str, folders))}; was the package installed whole?"
    )


def demo_model() -> Path:
    """The file of the demo's student, the model that comes along.

    It was trained on the synthetic world alone and knows nothing of real streets.

    Raises:
        ConfigError: it is not there.

    Examples:
        >>> demo_model().name
        'demo.safetensors'
    """
    return shared_file("config/models/demo.safetensors")
