"""Every way to fail: one family, each with its next step, retryable or not.

::

    SymbioError                      one line: what, where, what to do
    ├── BadInput                     exit code 2: the person can mend it
    │   ├── CorpusError
    │   ├── ConfigError
    │   ├── BudgetTooSmall
    │   └── UnknownRun
    ├── StorageError
    │   ├── NotWritable              exit code 2
    │   ├── DiskTooFull              exit code 2
    │   ├── AlreadyExists            a create-once name is taken
    │   ├── SwapLost                 somebody else moved the pointer first
    │   ├── LeaseHeld                exit code 2: another process works on the run
    │   ├── LeaseLost                another process has taken the run over
    │   ├── BucketRefused            exit code 2: a bucket that is not there or not for us
    │   ├── BucketUnreachable        retryable: no answer, or none but errors, for long enough
    │   └── Damaged                  what was written is missing, altered or unreadable
    │       └── CheckpointDamaged
    ├── ComputeError
    │   ├── NoDevice                 exit code 2
    │   ├── CloudRefused             a request to Google Cloud failed; says where that holds
    │   ├── NoCapacity               every place was tried; what to ask for and where
    │   ├── PriceUnknown             exit code 2
    │   ├── PriceCapReached          no money is left for another machine
    │   ├── PhaseLost                a phase elsewhere ended too often without getting further
    │   ├── TurnOver                 another process has taken this start of a phase
    │   └── Overtime                 retryable: a phase takes far longer than predicted
    ├── TrainingError
    │   ├── Diverged
    │   └── OutOfMemory
    └── Interrupted                  exit code 130: a person asked the run to stop; state is saved
"""

from __future__ import annotations

from typing import Literal


class SymbioError(Exception):
    """Something symbio can explain in one line: what is wrong, where, what to do."""

    exit_code = 1
    retryable = False


class BadInput(SymbioError):
    """The person can mend it: a setting, a path, a corpus."""

    exit_code = 2


class CorpusError(BadInput):
    """The corpus is missing, empty, unreadable, not UTF-8 or too small."""


class ConfigError(BadInput):
    """A setting is unknown, out of bounds or contradicts another."""


class BudgetTooSmall(ConfigError):
    """The budget does not cover one full generation in each search phase."""


class UnknownRun(BadInput):
    """No run of that name lives in this storage."""


class StorageError(SymbioError):
    """Reading or writing the storage root failed."""


class NotWritable(StorageError):
    """The storage root refuses to be written."""

    exit_code = 2


class DiskTooFull(StorageError):
    """The checkpoints to come do not fit on the disk."""

    exit_code = 2


class AlreadyExists(StorageError):
    """A name that may be created only once is taken by other content."""


class SwapLost(StorageError):
    """A compare-and-swap found another version than the one it read."""


class BucketRefused(StorageError):
    """A bucket is missing, lies elsewhere, or refuses whoever runs this."""

    exit_code = 2


class BucketUnreachable(StorageError):
    """Cloud Storage gave no answer, or none but errors, for as long as was allowed."""

    retryable = True


class LeaseHeld(StorageError):
    """Another process works on this run; the message says which, and how to take over."""

    exit_code = 2


class LeaseLost(StorageError):
    """Another process has taken this run over: nothing more may be written by this one."""


class Damaged(StorageError):
    """Something that was written is missing, altered, or cannot be read from its disk.

    Whoever can do without it catches this and no more: a bucket out of reach is no damage.
    """


class CheckpointDamaged(Damaged):
    """A blob or manifest is missing or does not match its hash."""


class ComputeError(SymbioError):
    """The machine cannot do what was asked."""


class NoDevice(ComputeError):
    """The device that was asked for is not there."""

    exit_code = 2


class CloudRefused(ComputeError):
    """Google Cloud refused a request, or an operation of it ended with an error."""

    def __init__(
        self,
        text: str,
        *,
        code: str = "",
        scope: Literal["zone", "region", "project"] = "zone",
        zones: tuple[str, ...] = (),
    ) -> None:
        super().__init__(text)
        self.code = code
        """The service's own word, for example ZONE_RESOURCE_POOL_EXHAUSTED."""
        self.scope = scope
        """How far it holds."""
        self.zones = zones
        """Zones that the service says have room."""


class NoCapacity(ComputeError):
    """No place is left to try; the message says what to ask for and where."""


class PriceUnknown(ComputeError):
    """The price table has no row for the machine that was asked for."""

    exit_code = 2


class PhaseLost(ComputeError):
    """A phase that runs elsewhere failed, or was lost too often; what it saved is whole."""


class TurnOver(ComputeError):
    """This start of a phase no longer counts: its process ends and saves nothing more."""


class PriceCapReached(ComputeError):
    """The cap on cost leaves no room for a machine, its shutdown counted."""


class Overtime(ComputeError):
    """A phase takes more than its allowed multiple of the predicted time."""

    retryable = True


class TrainingError(SymbioError):
    """Training itself went wrong."""


class Diverged(TrainingError):
    """The loss is not finite, or too many steps were skipped as spikes."""


class OutOfMemory(TrainingError):
    """The device ran out of memory."""


class Interrupted(SymbioError):
    """A person asked the run to stop; everything is saved and it can be resumed."""

    exit_code = 130
