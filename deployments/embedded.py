"""The flow on Prefect's embedded server, or on that of `symbio up` where it runs."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, cast

from deployments.server import start
from deployments.surroundings import running_server, settle
from symbio_core.errors import ConfigError

if TYPE_CHECKING:
    from symbio_core.config import RunConfig
    from symbio_core.report import FinalReport

QUIET = {
    # The command line shows progress and errors in its own words; Prefect keeps the logs.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
}


def run_embedded(config: RunConfig, run_id: str | None) -> FinalReport:
    """Run the flow `symbio` in this process and return its report.

    Costs about 5 s for the start of Prefect's embedded server, twice that the first time, and
    nothing where a server runs.

    Raises:
        SymbioError: as the plain run does.
    """
    home = settle()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("PREFECT_PROFILE", "ephemeral")
    api_url = os.environ.get("PREFECT_API_URL") or running_server(home)
    if api_url is not None:
        return _run_at(api_url, config, run_id)
    if config.compute.kind != "local":
        raise ConfigError(
            f"compute.kind is '{config.compute.kind}', and the worker there needs a Prefect server "
            "that it can reach; start `symbio up` first, or set PREFECT_API_URL"
        )
    server = start(home)
    # While it starts, what takes long to import is imported.
    import flows.autonomous  # noqa: F401

    return _run_at(server.wait(), config, run_id)


def _run_at(api_url: str, config: RunConfig, run_id: str | None) -> FinalReport:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.autonomous import symbio

    with temporary_settings({PREFECT_API_URL: api_url}):
        return cast("FinalReport", asyncio.run(symbio(config, run_id)))
