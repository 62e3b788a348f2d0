"""Look after what a run has left: say what is damaged, and make anew what can be."""

from __future__ import annotations

from symbio_core.errors import Damaged
from symbio_core.runner.inspecting import storage_option
from symbio_core.runner.opening import reopen
from symbio_core.runner.run import TOKENIZER, Run
from symbio_core.storage import Checkup, Lease, RunStore, check_run, open_store
from symbio_core.storage.runs import LIST

QUICK_BYTES = 500_000_000
"""So much is compared with hashes on the way, which takes about a second."""


def examine(root: str, run_id: str, *, deep: bool | None = None) -> Checkup:
    """Look at every file of a run; also of one whose journal cannot be read.

    Args:
        root: storage root.
        run_id: the run's name.
        deep: compare all contents with hashes; False: small files only; None: what is needed
            most, for about a second.

    Raises:
        UnknownRun: there is no such run.
    """
    try:
        run = reopen(root, run_id)
    except Damaged:
        store = RunStore(open_store(root), run_id)
        return check_run(store, {}, most_bytes=None if deep is not False else 0)
    return examine_run(run, deep=deep)


def examine_run(run: Run, *, deep: bool | None = None) -> Checkup:
    """Look at every file of an open run; see `examine`."""
    most_bytes = {True: None, False: 0, None: QUICK_BYTES}[deep]
    if deep is None and "://" in run.config.storage.root:
        most_bytes = 0  # A bucket knows by which hash a file was written.
    state = run.plain_state if run.events else None
    return check_run(run.store, run.referenced(), state, most_bytes=most_bytes)


def damage(run: Run) -> list[str]:
    """Return a line for each damaged file of a run: what is wrong, and what mends it.

    One more line says so where not all contents were compared with their hashes.
    """
    found = examine_run(run)
    told = [f"damaged: {file.why}; {file.remedy}" for file in found.wrong]
    if found.unread:
        told.append(
            f"of {len(found.unread)} large files only the length was compared; "
            f"`symbio fsck {run.run_id}{storage_option(run)}` compares their contents"
        )
    return told


def repair(root: str, run_id: str) -> list[str]:
    """Make anew what can be made from the rest of a run, and say what was done, a line each.

    A journal that cannot be read goes back to what stands before the damage; nothing is deleted:
    the segments from there on are set aside in a folder of their own. While they lie there no
    checkpoint is deleted, so that whoever finds a copy of the damaged one can put all back.

    Raises:
        LeaseHeld: another process works on the run.
        StorageError: the run cannot be opened all the same.
    """
    store = RunStore(open_store(root), run_id)
    before = examine(root, run_id)
    done = []
    if _broken(store):
        lease = Lease.take(store.store, run_id)
        try:
            store.journal.fence = lease
            # Once more: another repair may have come first.
            for key in _broken(store)[:1]:
                done += [f"set aside: {where}" for where in store.journal.set_aside(key)]
                done.append("no checkpoint is deleted while they lie there")
            if not store.journal.read():
                # It tells of what is set aside; a person has asked to go back before that.
                lease.check()
                store.store.delete(f"{store.home}/state.json")
        finally:
            lease.release()
    run = reopen(root, run_id)
    run.claim()
    try:
        mended = {file.name for file in before.wrong}
        again = examine_run(run)
        if not run.is_finished and any(file.name in (TOKENIZER, LIST) for file in again.wrong):
            run.write_tokenizer()
            if run.store.has_file("report/report.html"):
                run.report()
            again = examine_run(run)
        if run.is_finished and any(file.name.startswith(_MADE) for file in again.wrong):
            run.finish()
            run.claim()
            again = examine_run(run)
        mended -= {file.name for file in again.wrong}
        done += [
            f"mended: {run.store.store.where(f'{run.store.home}/{n}')}" for n in sorted(mended)
        ]
    finally:
        run.release()
    return done


_MADE = ("metrics/", "report/", "model/", "files.json")


def _broken(store: RunStore) -> list[str]:
    """Return the damaged segments of the journal, oldest first."""
    return [key for key, why in store.journal.survey().items() if why is not None]
