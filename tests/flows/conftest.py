"""One real Prefect API for all tests of this folder; it takes seconds to start."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_DATABASE_CONNECTION_URL,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)

from deployments.server import START_S
from deployments.surroundings import database_url


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Prefect's client leaves sockets to the garbage collector; that is not ours to mend.
    for item in items:
        if "tests/flows/" in item.path.as_posix():
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home = tmp_path_factory.mktemp("prefect")
    own = {
        PREFECT_HOME: home,
        PREFECT_SERVER_DATABASE_CONNECTION_URL: database_url(home),
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: int(START_S),
    }
    with (
        temporary_settings(own),
        SubprocessASGIServer() as server,
        temporary_settings({PREFECT_API_URL: server.api_url}),
    ):
        yield


@pytest.fixture(autouse=True)
def on_prefect(prefect_api: None) -> Iterator[None]:
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
