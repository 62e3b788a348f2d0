"""`symbio …`: what a person types. Each file holds the commands of one purpose."""

import symbio_core.cli.cloud  # adds its commands
import symbio_core.cli.estimate
import symbio_core.cli.keeping
import symbio_core.cli.proving  # noqa: F401 - adds its command
from symbio_core.cli.commands import main

__all__ = ["main"]
