"""Secret Manager, as far as making, reading and removing secrets goes."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.cloud.compute_world import Rejected

SECRETS = r"/v1/projects/(?P<project>[^/]+)/secrets"
SECRET = SECRETS + r"/(?P<name>[^/:]+)"
ROUTES = [
    ("POST", SECRETS, "createSecret"),
    ("GET", SECRETS, "listSecrets"),
    ("PATCH", SECRET, "updateSecret"),
    ("DELETE", SECRET, "deleteSecret"),
    ("POST", SECRET + r":setIamPolicy", "setSecretPolicy"),
    ("POST", SECRET + r":addVersion", "addSecretVersion"),
    ("GET", SECRET + r"/versions/(?P<version>[^/:]+):access", "accessSecret"),
]
METHODS = {method for _, _, method in ROUTES}
READER = "roles/secretmanager.secretAccessor"


@dataclass
class Secret:
    """One secret: what is said of it, its values in order, and who may read them."""

    about: dict[str, Any]
    values: list[bytes] = field(default_factory=list)
    readers: set[str] = field(default_factory=set)


class SecretManager:
    """All secrets of the project, by id."""

    def __init__(self) -> None:
        self.secrets: dict[str, Secret] = {}

    def answer(
        self, method: str, at: dict[str, str], query: dict[str, str], body: Any, account: str
    ) -> Any:
        """Do what is asked; ``account`` is the machine that asks, or empty for a person."""
        match method:
            case "createSecret":
                return self._create(at["project"], query.get("secretId", ""), body)
            case "listSecrets":
                term = re.fullmatch(r"labels\.([\w-]+)=(.+)", query.get("filter", ""))
                found = [
                    one.about
                    for one in self.secrets.values()
                    if not term or one.about["labels"].get(term[1]) == term[2]
                ]
                return {"secrets": found, "totalSize": len(found)} if found else {}
        secret = self._known(at["project"], at["name"])
        match method:
            case "updateSecret":
                secret.about |= {key: body[key] for key in query["updateMask"].split(",")}
            case "deleteSecret":
                del self.secrets[at["name"]]
                return {}
            case "setSecretPolicy":
                bindings = body["policy"]["bindings"]
                secret.readers = {m for b in bindings if b["role"] == READER for m in b["members"]}
                return body["policy"]
            case "addSecretVersion":
                secret.values.append(base64.b64decode(body["payload"]["data"], validate=True))
                name = f"{secret.about['name']}/versions/{len(secret.values)}"
                return {"name": name, "state": "ENABLED"}
            case "accessSecret":
                return self._read(secret, at["version"], account)
        return secret.about

    def _create(self, project: str, name: str, body: Any) -> Any:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", name):
            raise Rejected(400, "", f"Secret id '{name}' is invalid")
        full = f"projects/{project}/secrets/{name}"
        if name in self.secrets:
            raise Rejected(409, "", f"Secret [{full}] already exists.")
        if "replication" not in body:
            raise Rejected(400, "", "The replication policy is missing")
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        self.secrets[name] = Secret({"labels": {}, **body, "name": full, "createTime": now})
        return self.secrets[name].about

    def _known(self, project: str, name: str) -> Secret:
        if name not in self.secrets:
            full = f"projects/{project}/secrets/{name}"
            raise Rejected(404, "", f"Secret [{full}] not found or has no versions.")
        return self.secrets[name]

    def _read(self, secret: Secret, version: str, account: str) -> Any:
        if not account or f"serviceAccount:{account}" not in secret.readers:
            raise Rejected(403, "", "Permission 'secretmanager.versions.access' denied")
        number = len(secret.values) if version == "latest" else int(version)
        data = base64.b64encode(secret.values[number - 1]).decode("ascii")
        name = f"{secret.about['name']}/versions/{number}"
        return {"name": name, "payload": {"data": data}}
