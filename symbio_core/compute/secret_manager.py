"""What a run's machines have to know and nobody else may read: kept in Secret Manager meanwhile."""

from __future__ import annotations

import base64
import re
from typing import Any
from urllib.parse import quote

from symbio_core.compute.gce import Provisioner
from symbio_core.compute.machines import LABEL, RUN_LABEL, KeptSecret, label_value, run_stem
from symbio_core.errors import CloudRefused

HOST = "secretmanager.googleapis.com"
READER = "roles/secretmanager.secretAccessor"
DAY_S = 86_400
"""A secret outlives the longest life of a machine by this much, then the service drops it (s)."""
PERMISSIONS = (
    "secretmanager.secrets.create",
    "secretmanager.secrets.delete",
    "secretmanager.secrets.list",
    "secretmanager.secrets.setIamPolicy",
    "secretmanager.secrets.update",
    "secretmanager.versions.add",
)
"""Rights that passing a secret on takes."""


class SecretKeeper:
    """Passes an operator's secrets on to the machines of one run, and takes them away again.

    The value goes to Secret Manager over TLS and nowhere else. A machine's metadata holds only the
    secret's name, and only the service account of the machine may read it.
    """

    def __init__(self, provisioner: Provisioner, run_id: str) -> None:
        self.provisioner = provisioner
        self.run_id = run_id
        self._reader = ""
        self._written: set[str] = set()

    def name(self, variable: str) -> str:
        """Return the full name of the secret that holds an environment variable's value."""
        return f"projects/{self.provisioner.project}/secrets/{self._id(variable)}"

    def keep(self, variable: str, value: str) -> str:
        """See that the machines can read a value, and return the secret's full name.

        Costs three requests; the value itself is sent once by each process.

        Raises:
            CloudRefused: Secret Manager is off, or a right is missing; the message says what mends
                it, and holds no secret.
        """
        try:
            is_new = self._made(variable)
            policy = {"bindings": [{"role": READER, "members": [f"serviceAccount:{self.reader}"]}]}
            self._ask(f"{self.name(variable)}:setIamPolicy", {"policy": policy})
            if is_new or variable not in self._written:
                data = base64.b64encode(value.encode()).decode("ascii")
                self._ask(f"{self.name(variable)}:addVersion", {"payload": {"data": data}})
                self._written.add(variable)
        except CloudRefused as error:
            raise CloudRefused(
                f"{variable} cannot be put into Secret Manager: {error}; see `symbio cloud "
                "doctor`, keep it there yourself and name it in compute.elsewhere.secrets, or "
                "leave it out of compute.elsewhere.pass_on",
                code=error.code,
                scope="project",
            ) from error
        return self.name(variable)

    def remove_all(self) -> None:
        """Delete every secret of the run, also those that an earlier process kept."""
        wanted = label_value(self.run_id)
        for secret in list_secrets(self.provisioner):
            if secret.labels.get(RUN_LABEL) == wanted:
                delete_secret(self.provisioner, secret.name)
        self._written.clear()

    @property
    def reader(self) -> str:
        """The service account of the run's machines."""
        if not self._reader:
            own = self.provisioner.settings.access.service_account
            self._reader = own or str(
                self.provisioner.ask("Projects", "get").default_service_account
            )
        return self._reader

    def _made(self, variable: str) -> bool:
        settings = self.provisioner.settings
        lifetime = {"ttl": f"{round(settings.max_run_hours * 3600) + DAY_S}s"}
        labels = {LABEL: settings.label, RUN_LABEL: label_value(self.run_id)}
        body = {"replication": {"automatic": {}}, "labels": labels, **lifetime}
        project = f"projects/{self.provisioner.project}"
        try:
            self._ask(f"{project}/secrets?secretId={self._id(variable)}", body)
        except CloudRefused as error:
            if error.code not in ("409", "alreadyExists"):
                raise
            self._ask(f"{self.name(variable)}?updateMask=ttl", lifetime, "PATCH")
            return False
        return True

    def _id(self, variable: str) -> str:
        stem = run_stem(self.run_id, self.provisioner.settings.label)
        return f"{stem}-{re.sub(r'[^a-z0-9]+', '-', variable.lower())}"

    def _ask(self, path: str, body: dict[str, Any], verb: str | None = None) -> Any:
        return self.provisioner.fetch(HOST, f"/v1/{path}", body, verb)


def list_secrets(provisioner: Provisioner) -> tuple[KeptSecret, ...]:
    """Return all secrets with the project's label, by name; none where the service is off."""
    label, found, token = provisioner.settings.label, [], ""
    wanted = quote(f"labels.{LABEL}={label}")
    while True:
        path = f"/v1/projects/{provisioner.project}/secrets?pageSize=250&filter={wanted}"
        try:
            page = provisioner.fetch(HOST, f"{path}&pageToken={quote(token)}" if token else path)
        except CloudRefused as error:
            # Where nobody may look, or nothing is switched on, this project's machines kept none.
            if error.scope == "project":
                return ()
            raise
        found += [
            KeptSecret.read(one)
            for one in page.get("secrets", ())
            if one.get("labels", {}).get(LABEL) == label
        ]
        token = str(page.get("nextPageToken", ""))
        if not token:
            return tuple(sorted(found, key=lambda secret: secret.name))


def delete_secret(provisioner: Provisioner, name: str) -> None:
    """Delete a secret with all its versions. One that is gone counts as deleted.

    Args:
        provisioner: speaks for the project.
        name: projects/PROJECT/secrets/ID; the service may write the project as a number.
    """
    short = name.rpartition("/")[2]
    path = f"/v1/projects/{provisioner.project}/secrets/{short}"
    try:
        provisioner.fetch(HOST, path, verb="DELETE")
    except CloudRefused as error:
        if error.code not in ("404", "notFound"):
            raise
