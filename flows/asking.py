"""A question to a person: the flow pauses with a form, and goes on when nobody answers in time."""

from __future__ import annotations

import asyncio
from typing import Any, Literal
from uuid import UUID

from prefect import runtime
from prefect.flow_runs import apause_flow_run, aresume_flow_run
from prefect.input import RunInput
from prefect.logging import get_run_logger
from pydantic import create_model

Choice = Literal["continue", "repeat", "stop"]
GRACE_S = 600
"""Prefect's own timeout fails the flow, so it comes well after ours (s)."""


async def ask_person(question: str, timeout_s: float) -> Choice:
    """Pause the flow until somebody chooses; choose `continue` when nobody does in time."""
    get_run_logger().warning(f"{question} Waiting {timeout_s:g} s for a person's choice.")
    blank: type[RunInput] = create_model("Choice", __base__=RunInput, choice=(Choice, "continue"))
    form = blank.with_initial_data(
        f"{question}\n\n`continue` from the best checkpoint, `repeat` the phase once more, "
        f"or `stop` here. Without an answer in {timeout_s:g} s the run continues."
    )
    timer = asyncio.create_task(_answer_later(UUID(runtime.flow_run.id), timeout_s))
    try:
        answer: Any = await apause_flow_run(
            wait_for_input=form, timeout=round(timeout_s) + GRACE_S, poll_interval=2
        )
    finally:
        timer.cancel()
    choice: Choice = answer.choice
    return choice


async def _answer_later(flow_run: UUID, timeout_s: float) -> None:
    await asyncio.sleep(timeout_s)
    await aresume_flow_run(flow_run, run_input={"choice": "continue"})
