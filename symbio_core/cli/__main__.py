"""`python -m symbio_core.cli`."""

from symbio_core.cli import main

main()
