"""`symbio …`: what a person types. Each file holds the commands of one purpose."""

from symbio_core.cli.commands import main

__all__ = ["main"]
