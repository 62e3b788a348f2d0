"""Every file operation of this process, counted, and a chance to die before any one of them."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

COUNTED = ("open", "fsync", "replace", "unlink", "mkdir")


class HalfWritten(io.BufferedIOBase):
    """A file whose content goes out in two halves, with a pause for death between them."""

    def __init__(self, file: Any, pause: Callable[[str], None]) -> None:
        self.file = file
        self.pause = pause

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        half = len(view) // 2
        for name, part in (("write", view[:half]), ("write the rest", view[half:])):
            self.pause(name)
            self.file.write(part)
            self.file.flush()
        return len(view)

    def flush(self) -> None:
        self.file.flush()

    def fileno(self) -> int:
        return int(self.file.fileno())

    def __exit__(self, *_: object) -> None:
        self.file.close()


@contextmanager
def before_each(pause: Callable[[str], None]) -> Iterator[None]:
    """Call ``pause`` with the operation's name before each file operation of the body."""
    whole = {name: getattr(os, name) for name in (*COUNTED, "fdopen")}

    def paused(name: str) -> Callable[..., Any]:
        def operation(*args: Any, **kwargs: Any) -> Any:
            pause(name)
            return whole[name](*args, **kwargs)

        return operation

    for name in COUNTED:
        setattr(os, name, paused(name))
    os.fdopen = lambda *args, **kwargs: HalfWritten(  # type: ignore[assignment]
        whole["fdopen"](*args, **kwargs), pause
    )
    try:
        yield
    finally:
        for name, operation in whole.items():
            setattr(os, name, operation)


def dying(at: int) -> Callable[[str], None]:
    """Return a pause that ends the process, as a kill does, before operation ``at`` (from 0)."""
    seen = iter(range(at + 1))

    def pause(_: str) -> None:
        if next(seen) == at:
            os._exit(DIED)

    return pause


DIED = 9
"""Exit status of a process that died on the way."""
