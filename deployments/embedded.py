"""The flow on Prefect's embedded server, or on that of `symbio up` where it runs."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, cast

from deployments.surroundings import running_server, settle

if TYPE_CHECKING:
    from symbio_core.config import RunConfig
    from symbio_core.report import FinalReport

QUIET = {
    # The command line shows progress and errors in its own words; Prefect keeps the logs.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}


def run_embedded(config: RunConfig, run_id: str | None) -> FinalReport:
    """Run the flow `symbio` in this process and return its report.

    Costs 6 to 12 s for the start of Prefect's embedded server, and nothing where one runs.

    Raises:
        SymbioError: as the plain run does.
    """
    home = settle()
    if "PREFECT_API_URL" not in os.environ:
        api_url = running_server(home)
        if api_url is not None:
            os.environ["PREFECT_API_URL"] = api_url
        else:
            os.environ.setdefault("PREFECT_PROFILE", "ephemeral")
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)

    from flows.autonomous import symbio

    return cast("FinalReport", asyncio.run(symbio(config, run_id)))
