"""A failed request to Cloud Storage as one line: what is wrong, where, what to do."""

from __future__ import annotations

import re

from symbio_core.errors import BucketRefused, BucketUnreachable, NotWritable, StorageError


def status_of(error: Exception) -> int:
    """Return the HTTP status behind an error of the client, or 0."""
    answer = getattr(error, "response", None)
    return int(getattr(error, "code", None) or getattr(answer, "status_code", None) or 0)


def told(error: Exception, doing: str, bucket: str, where: str) -> StorageError:
    """Return a failed request as one line: what, where, what to do.

    Args:
        error: what the client raised.
        doing: `create`, `read`, `list`, `delete` or `bucket`.
        bucket: name of the bucket.
        where: address of the object.
    """
    status = status_of(error)
    if status == 403 and doing == "bucket":
        return BucketRefused(
            f"no permission to see where gs://{bucket} lies (storage.buckets.get); grant "
            "roles/storage.legacyBucketReader on it, or leave storage.location empty"
        )
    if status == 403:
        kind = NotWritable if doing in ("create", "delete") else BucketRefused
        return kind(
            f"no permission to {doing} {where} ({_right(error, doing)}); grant "
            f"roles/storage.objectUser on gs://{bucket} to whoever runs this, or give another "
            "--storage"
        )
    if status == 401 or _is_about_credentials(error):
        return BucketRefused(
            f"the credentials for gs://{bucket} are refused or have expired; run: gcloud auth "
            "application-default login"
        )
    if status == 404:
        return BucketRefused(
            f"there is no bucket gs://{bucket}; check its name, or make it: "
            f"gcloud storage buckets create gs://{bucket}"
        )
    if 400 <= status < 500 and status not in (408, 429):
        return StorageError(f"Cloud Storage refused to {doing} {where}: {_first_line(error)}")
    return BucketUnreachable(
        f"Cloud Storage gave no good answer for {where} ({_first_line(_cause(error))}); what was "
        "saved before is whole: look at the network, then resume"
    )


def _is_about_credentials(error: Exception) -> bool:
    # By name: whoever has such an error in hand has loaded the package, and only gcs.py does that.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "GoogleAuthError" not in kinds or "TransportError" in kinds:
        return False
    return not getattr(error, "retryable", False)


def _right(error: Exception, doing: str) -> str:
    named = re.search(r"storage\.\w+\.\w+", str(error))
    return named[0] if named else f"storage.objects.{'get' if doing == 'read' else doing}"


def _cause(error: Exception) -> BaseException:
    return getattr(error, "cause", None) or error


def _first_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    said = re.search(r'"message": ?"((?:[^"\\]|\\.)+)', text)
    words = said[1].replace("\\", "") if said else text
    return f"{type(error).__name__}: {words}"[:200]
