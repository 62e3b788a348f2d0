"""Progress of a run on its page in Prefect: an artifact that moves, and lines of log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.logging import get_run_logger

from symbio_core.console import clock, figures
from symbio_core.progress import Progress, subscribe

SHOW_EVERY_S = 3.0
"""An update costs about 10 ms: this keeps it under half a percent."""


@asynccontextmanager
async def progress_shown(run_id: str) -> AsyncIterator[None]:
    """Show what the core reports about ``run_id`` while the body runs; needs a task around it."""
    logger = get_run_logger()
    latest: list[Progress] = []

    def listen(report: Progress) -> None:
        if report.run_id != run_id:
            return
        if report.message:
            logger.info(report.message)
        latest[:] = [report]

    unsubscribe = subscribe(listen)
    shower = asyncio.create_task(_keep_showing(latest))
    try:
        yield
    finally:
        unsubscribe()
        shower.cancel()
        await asyncio.wait([shower])


async def _keep_showing(latest: list[Progress]) -> None:
    artifact: UUID | None = None
    shown: Progress | None = None
    while True:
        await asyncio.sleep(SHOW_EVERY_S)
        if not latest or latest[0] is shown:
            continue
        shown = latest[0]
        percent = min(100.0, 100.0 * shown.step / max(1, shown.steps))
        text = f"{clock(shown)} · step {shown.step} of {shown.steps} · {figures(shown)}"
        if artifact is None:
            artifact = await acreate_progress_artifact(percent, description=text)
        else:
            await aupdate_progress_artifact(artifact, percent, description=text)
