"""One real Prefect API for all tests of this folder; it takes seconds to start."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest
from prefect.testing.utilities import prefect_test_harness


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Prefect's client leaves sockets to the garbage collector; that is not ours to mend.
    for item in items:
        if "tests/flows/" in item.path.as_posix():
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(autouse=True)
def on_prefect(prefect_api: None) -> Iterator[None]:
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
