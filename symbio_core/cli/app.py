"""The application that every file of commands adds to, and what all commands share."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(
    help=(
        "Train a small GPT on your own text, evolve its activation function, and learn whether "
        "that was worth it.\n\nStart with: symbio run --profile demo"
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Storage = Annotated[
    str, typer.Option(help="Folder that holds all runs, or gs://bucket/prefix.", show_default=True)
]
RunName = Annotated[str, typer.Argument(help="Name of the run; `symbio runs` lists them.")]
