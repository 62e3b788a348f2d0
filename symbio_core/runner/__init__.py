"""One run in plain Python; the only room where all the others meet."""

from symbio_core.runner.inspecting import (
    Measured,
    evaluate,
    report_path,
    resume_command,
    sample,
    stands_at,
    summary,
)
from symbio_core.runner.keeping import damage, examine, repair
from symbio_core.runner.living import live
from symbio_core.runner.opening import begin, names, new_name, newest, no_runs, open_run, reopen
from symbio_core.runner.run import Run

__all__ = [
    "Measured",
    "Run",
    "begin",
    "damage",
    "evaluate",
    "examine",
    "live",
    "names",
    "new_name",
    "newest",
    "no_runs",
    "open_run",
    "reopen",
    "repair",
    "report_path",
    "resume_command",
    "sample",
    "stands_at",
    "summary",
]
