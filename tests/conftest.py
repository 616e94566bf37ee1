# SPDX-License-Identifier: Apache-2.0
"""What every test may ask for."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from labeldistill_ros.shared_memory import remove_abandoned_segments
from tests.support.nuscenes_fixture import write_dataroot
from tests.support.prepared_processes import prepare_processes

REPOSITORY = Path(__file__).resolve().parent.parent


PARALLEL = "PYTEST_XDIST_WORKER" in os.environ
NICENESS = 10
"""Of the tests that only compute."""

if PARALLEL:
    # Workers with as many threads each as there are cores wait for one another; what they start
    # reads the variable.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give all tests that run in real time to two workers, which wait most of their time.

    Of the workers' groups they are the largest, so xdist begins with them, and then follows the
    order of the tests.
    """
    for item in items:
        if "ros_context" in getattr(item, "fixturenames", ()):
            item.add_marker("real_time")
        if item.get_closest_marker("real_time"):
            about = item.path.relative_to(REPOSITORY / "tests").parts
            # Each takes about as long as the other.
            half = "recordings" if about[0] == "benchmarks" or "bags" in about else "node"
            item.add_marker(pytest.mark.xdist_group(f"real_time_{half}"))
    if PARALLEL:
        items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none; let computing wait for what runs in real time."""
    # Tests in real time leave half of a core idle, and fail where they do not get it when they need
    # it. A worker that has begun to compute gets no such test any more.
    if PARALLEL and not item.get_closest_marker("real_time") and os.nice(0) < NICENESS:
        os.nice(NICENESS - os.nice(0))
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Free the shared memory of nodes that tests have killed, when the last worker has ended."""
    if not hasattr(config, "workerinput"):
        remove_abandoned_segments()


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Leave the user's cache alone, also in processes that tests start."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="session")
def _prepared_processes() -> Iterator[None]:
    """Spare spawned processes the import of torch."""
    with pytest.MonkeyPatch.context() as patch:
        prepare_processes(patch)
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real and golden data that lie beside the checkout, not in it."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real and golden data, which are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def shared_dataroot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data root in nuScenes form, not to be changed."""
    return write_dataroot(tmp_path_factory.mktemp("nuscenes"))


@pytest.fixture(scope="session")
def synthetic_dataroot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes of four key frames of the synthetic world (seed 3, 200x112), not to be changed."""
    from labeldistill_core.synthetic.dataset import WorldOptions, write_dataset

    root = tmp_path_factory.mktemp("world") / "data"
    options = WorldOptions(2, 4, seed=3, image_size_px=(200, 112), workers=1)
    assert write_dataset(root, options) == "v1.0-mini"
    return root


@pytest.fixture
def dataroot(tmp_path: Path) -> Path:
    """A small data root in nuScenes form, this test's own."""
    (tmp_path / "nuscenes").mkdir()
    return write_dataroot(tmp_path / "nuscenes")
