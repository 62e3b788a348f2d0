"""The run's exact code as one file, named by its hash: the same files, the same bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

from symbio_core.errors import ConfigError

PARTS = (
    "symbio_core",
    "tasks",
    "flows",
    "deployments",
    "prefect.yaml",
    "pyproject.toml",
    "constraints.txt",
    "README.md",
    "LICENSE",
)
"""What runs there; tests, docs and whatever else lies about stay here."""
LEFT_OUT = ("__pycache__",)


def packed(project: Path) -> bytes:
    """Return the code below ``project`` as a tar.gz without times, owners or order of its own.

    Raises:
        ConfigError: the folder is not a checkout of symbio.
    """
    missing = [part for part in PARTS if not (project / part).exists()]
    if missing:
        raise ConfigError(
            f"{project} lacks {', '.join(missing)}, which a machine needs; start from the folder "
            "of a checkout that holds prefect.yaml"
        )
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in _files(project):
            data = path.read_bytes()
            about = tarfile.TarInfo(path.relative_to(project).as_posix())
            about.size = len(data)
            about.mode = 0o755 if path.suffix == ".sh" else 0o644
            tar.addfile(about, io.BytesIO(data))
    zipped = io.BytesIO()
    # A header with neither name nor time.
    with gzip.GzipFile(filename="", fileobj=zipped, mode="wb", mtime=0) as file:
        file.write(plain.getvalue())
    return zipped.getvalue()


def address(data: bytes) -> tuple[str, str]:
    """Return an archive's hash (sha256) and the key it is kept under in a storage root."""
    digest = hashlib.sha256(data).hexdigest()
    return digest, f"code/{digest}.tar.gz"


def _files(project: Path) -> Iterator[Path]:
    for part in PARTS:
        top = project / part
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file() and not any(name in LEFT_OUT for name in path.parts):
                yield path
