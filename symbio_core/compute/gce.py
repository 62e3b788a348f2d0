"""Machines of Google Compute Engine: launched, found, stopped, deleted, and accounted for."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlparse

from symbio_core.compute.calling import Patience, insist, reason_of, status_of
from symbio_core.compute.failover import refusal
from symbio_core.compute.instance import (
    described,
    disk_of,
    hints_of,
    machine_of,
    stays_of,
)
from symbio_core.compute.machines import (
    LABEL,
    Disk,
    Machine,
    Order,
    Stay,
    check_metadata,
    label_value,
)
from symbio_core.config import GceSettings
from symbio_core.errors import CloudRefused, ConfigError

T = TypeVar("T")
ENDPOINT_VARIABLE = "SYMBIO_GCE_ENDPOINT"
"""Environment variable with another address of the Compute API."""
CLOUD_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Provisioner:
    """Speaks with the Compute API for one project.

    Every change carries a request id, so that a reply that got lost never makes a second machine.
    Operations are polled here: the client's own polling would ask another address.
    """

    def __init__(
        self,
        settings: GceSettings,
        *,
        endpoint: str | None = None,
        credentials: object | None = None,
        patience: Patience | None = None,
    ) -> None:
        if settings.project is None:
            raise ConfigError("compute.gce.project is empty; name your Google Cloud project")
        self.settings = settings
        self.project: str = settings.project
        self.endpoint = endpoint or os.environ.get(ENDPOINT_VARIABLE) or settings.endpoint
        self.patience = patience or Patience()
        self._given = credentials
        self._clients: dict[str, Any] = {}

    # --- what a run does

    def image(self) -> str:
        """Return the newest image of the settings' family, by its exact name.

        Raises:
            CloudRefused: the family is gone, as families go with time.
        """
        boot = self.settings.boot
        try:
            found = self.ask(
                "Images", "get_from_family", project=boot.image_project, family=boot.image_family
            )
        except CloudRefused as error:
            if error.code not in ("404", "notFound"):
                raise
            raise CloudRefused(
                f"image family {boot.image_family} is not in project {boot.image_project}; take "
                f"one of `gcloud compute images list --project {boot.image_project} "
                "--no-standard-images` for compute.gce.boot.image_family",
                code="IMAGE_NOT_FOUND",
                scope="project",
            ) from error
        return f"projects/{boot.image_project}/global/images/{found.name}"

    def launch(self, order: Order) -> Machine:
        """Launch a machine and wait until it runs.

        Raises:
            CloudRefused: with the service's code, and how far the refusal holds.
            ConfigError: the metadata of the order may hold a secret.
        """
        check_metadata(order.metadata)
        resource = described(self.settings, order, self.image())
        operation = self._change("insert", order.zone, instance_resource=resource)
        self._settled(operation, order.zone)
        machine = self.get(order.zone, order.name)
        if machine is None:
            raise CloudRefused(
                f"machine {order.name} is gone from {order.zone} just after its launch; try again",
                code="RESOURCE_NOT_FOUND",
            )
        return machine

    def get(self, zone: str, name: str) -> Machine | None:
        """Return a machine, or None if there is none of that name in the zone."""
        try:
            return machine_of(self.ask("Instances", "get", zone=zone, instance=name))
        except CloudRefused as error:
            if error.code in ("404", "notFound"):
                return None
            raise

    def find(self, run_id: str) -> tuple[Machine, ...]:
        """Return the machines of a run in whatever zone and state, oldest first."""
        wanted = label_value(run_id)
        return tuple(machine for machine in self.list_owned() if machine.run == wanted)

    def list_owned(self) -> tuple[Machine, ...]:
        """Return all machines with the project's label, oldest first."""
        label = self.settings.label
        wanted = f'labels.{LABEL}="{label}"'
        found = [
            machine_of(instance)
            for page in self.pages("Instances", "aggregated_list", filter=wanted)
            for scoped in page.items.values()
            for instance in scoped.instances
            if instance.labels.get(LABEL) == label
        ]
        return tuple(sorted(found, key=lambda m: (m.created or 0.0, m.name)))

    def list_disks(self) -> tuple[Disk, ...]:
        """Return all disks with the project's label, by name."""
        label = self.settings.label
        wanted = f'labels.{LABEL}="{label}"'
        found = [
            disk_of(disk)
            for page in self.pages("Disks", "aggregated_list", filter=wanted)
            for scoped in page.items.values()
            for disk in scoped.disks
            if disk.labels.get(LABEL) == label
        ]
        return tuple(sorted(found, key=lambda disk: disk.name))

    def delete_disk(self, zone: str, name: str) -> None:
        """Delete a disk that no machine uses. One that is gone counts as deleted."""
        self._end("delete", zone, service="Disks", disk=name)

    def start(self, machine: Machine) -> Machine:
        """Start a stopped machine and wait until it runs.

        Raises:
            CloudRefused: for example, its zone has no room now.
        """
        self._settled(self._change("start", machine.zone, instance=machine.name), machine.zone)
        return self.get(machine.zone, machine.name) or machine

    def stop(self, machine: Machine) -> None:
        """Stop a machine; its disk is kept, and costs. One that is gone counts as stopped."""
        self._end("stop", machine.zone, instance=machine.name)

    def delete(self, machine: Machine) -> None:
        """Delete a machine and its disk. One that is gone counts as deleted."""
        self._end("delete", machine.zone, instance=machine.name)

    def delete_by_name(self, zone: str, name: str) -> None:
        """Delete a machine that may or may not be there, for example after a launch that hung."""
        self._end("delete", zone, instance=name)

    def until_running(self, machine: Machine) -> Machine:
        """Wait until a machine that is on its way runs.

        Raises:
            CloudRefused: it went away or stopped instead.
        """
        now = self._until(machine, ("RUNNING", "STOPPING", "TERMINATED", "STOPPED"))
        if now is None or now.status != "RUNNING":
            raise CloudRefused(
                f"machine {machine.name} in {machine.zone} went away before it ran; "
                "another place will be tried",
                code="RESOURCE_NOT_READY",
            )
        return now

    def until_stopped(self, machine: Machine) -> Machine | None:
        """Wait until a machine that is on its way out has stopped, or is gone (None)."""
        return self._until(machine, ("TERMINATED", "STOPPED", "RUNNING"))

    def serial(self, machine: Machine, start: int = 0) -> tuple[str, int]:
        """Return what a machine wrote to its first serial port, and where to go on reading.

        Args:
            machine: whose.
            start: position to read from (bytes).
        """
        got = self.ask(
            "Instances",
            "get_serial_port_output",
            zone=machine.zone,
            instance=machine.name,
            port=1,
            start=start,
        )
        return str(got.contents), int(got.next_)

    def set_labels(self, machine: Machine, labels: dict[str, str]) -> None:
        """Add labels to a machine, or change them; others who do so at the same time lose none."""
        for _try in range(self.patience.tries):
            now = self.ask("Instances", "get", zone=machine.zone, instance=machine.name)
            body = {
                "labels": {**now.labels, **{k: label_value(v) for k, v in labels.items()}},
                "label_fingerprint": now.label_fingerprint,
            }
            try:
                operation = self._change(
                    "set_labels",
                    machine.zone,
                    instance=machine.name,
                    instances_set_labels_request_resource=body,
                )
            except CloudRefused as error:
                if error.code in ("412", "conditionNotMet"):
                    continue
                raise
            self._settled(operation, machine.zone)
            return
        raise CloudRefused(f"labels of {machine.name} change faster than they can be set")

    def stays(self, zone: str, name: str) -> tuple[Stay, ...]:
        """Return the stretches of time that a machine ran, from the zone's operations.

        They are known even if the machine deleted itself while nobody looked.
        """
        pages = self.pages("ZoneOperations", "list", zone=zone)
        link = f"/instances/{name}"
        return stays_of(
            name, zone, [o for p in pages for o in p.items if o.target_link.endswith(link)]
        )

    # --- what a check reads

    def quotas(self, region: str | None = None) -> dict[str, tuple[float, float]]:
        """Return quota metrics as (limit, usage): of a region, or of the project as a whole."""
        if region is None:
            found = self.ask("Projects", "get")
        else:
            found = self.ask("Regions", "get", region=region)
        return {quota.metric: (quota.limit, quota.usage) for quota in found.quotas}

    # --- how it is asked

    def _end(self, method: str, zone: str, service: str = "Instances", **what: str) -> None:
        try:
            self._settled(self._change(method, zone, service, **what), zone)
        except CloudRefused as error:
            if error.code not in ("404", "notFound", "RESOURCE_NOT_FOUND"):
                raise

    def _until(self, machine: Machine, states: tuple[str, ...]) -> Machine | None:
        until = self.patience.clock() + self.patience.operation_s
        while True:
            now = self.get(machine.zone, machine.name)
            if now is None or now.status in states:
                return now
            if self.patience.clock() > until:
                raise CloudRefused(
                    f"machine {machine.name} in {machine.zone} is {now.status} for longer than "
                    f"{self.patience.operation_s:g} s; look at it in the console",
                    code="TIMEOUT",
                )
            self.patience.sleep(self.patience.poll_s)

    def _change(self, method: str, zone: str, service: str = "Instances", **fields: Any) -> Any:
        # One id for all tries: the service answers a repeated request with the first operation.
        request_id = str(uuid.uuid4())
        return self.ask(service, f"{method}_unary", zone=zone, request_id=request_id, **fields)

    def _settled(self, operation: Any, zone: str) -> None:
        """Wait until an operation is done, and raise what it says went wrong."""
        until = self.patience.clock() + self.patience.operation_s
        while operation.status.name != "DONE":
            if self.patience.clock() > until:
                raise CloudRefused(
                    f"operation {operation.name} in {zone} takes longer than "
                    f"{self.patience.operation_s:g} s; look at it in the console, or try again",
                    code="TIMEOUT",
                )
            self.patience.sleep(self.patience.poll_s)
            operation = self.ask("ZoneOperations", "get", zone=zone, operation=operation.name)
        for error in operation.error.errors:
            raise refusal(error.code, error.message, zone, hints_of(error))
        if operation.http_error_status_code >= 400:
            code = str(operation.http_error_status_code)
            raise refusal(code, operation.http_error_message, zone)

    def ask(self, service: str, method: str, **fields: Any) -> Any:
        """Send one request, trying again while its failure may pass.

        Args:
            service: client of compute_v1 without `Client`, for example `Regions`.
            method: its method, for example `get`.
            fields: what the request holds; the project is filled in.

        Raises:
            CloudRefused: in one line, with the service's code.
        """
        fields.setdefault("project", self.project)

        def once() -> Any:
            call = getattr(self._client(service), method)
            return call(fields, retry=None, timeout=self.patience.request_s)

        return self._insisted(once, str(fields.get("zone", "")))

    def pages(self, service: str, method: str, **fields: Any) -> Iterator[Any]:
        """Yield all pages of a list; the client's own pager has none of the tries above."""
        token = ""
        while True:
            pager = self.ask(service, method, page_token=token, **fields)
            page = next(iter(pager.pages))
            yield page
            token = page.next_page_token
            if not token:
                return

    def fetch(
        self, host: str, path: str, body: dict[str, Any] | None = None, verb: str | None = None
    ) -> Any:
        """Return the JSON of another Google service.

        Args:
            host: the service, for example `iam.googleapis.com`.
            path: path and query.
            body: what is sent as JSON.
            verb: HTTP method; without one GET, or POST where there is a body.

        Raises:
            CloudRefused: in one line, with the service's code.
        """
        from google.api_core.exceptions import from_http_response
        from google.auth.transport import requests as transport

        base = self.endpoint if self._is_local() and self.endpoint else f"https://{host}"
        method = verb or ("GET" if body is None else "POST")
        login = self._insisted(self._login)
        session: Any = transport.AuthorizedSession(login)  # type: ignore[no-untyped-call]

        def once() -> Any:
            wait_s = self.patience.request_s
            reply = session.request(method, f"{base}{path}", json=body, timeout=wait_s)
            if reply.status_code >= 400:
                raise from_http_response(reply)  # type: ignore[no-untyped-call]
            return reply.json()

        with session:
            return self._insisted(once)

    def _insisted(self, call: Callable[[], T], zone: str = "") -> T:
        from google.api_core.exceptions import GoogleAPICallError
        from google.auth.exceptions import GoogleAuthError, TransportError

        try:
            return insist(call, self.patience)
        except GoogleAPICallError as error:
            raise refusal(reason_of(error), error.message, zone, status=status_of(error)) from error
        except TransportError as error:
            raise CloudRefused(
                f"Google's login service cannot be reached: {error}; check the network",
                code="network",
            ) from error
        except GoogleAuthError as error:
            raise CloudRefused(
                f"no usable Google credentials: {error}; run `gcloud auth application-default "
                "login`, or set GOOGLE_APPLICATION_CREDENTIALS",
                code="401",
                scope="project",
            ) from error
        except OSError as error:
            raise CloudRefused(
                f"the Compute API cannot be reached: {error}; check the network", code="network"
            ) from error

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            from google.cloud import compute_v1

            options = {"api_endpoint": self.endpoint} if self.endpoint else None
            kind = getattr(compute_v1, f"{service}Client")
            self._clients[service] = kind(credentials=self._credentials(), client_options=options)
        return self._clients[service]

    def _credentials(self) -> Any:
        # A server on this machine gets no one's credentials.
        if self._given is None and self._is_local():
            from google.auth.credentials import AnonymousCredentials

            return AnonymousCredentials()  # type: ignore[no-untyped-call]
        return self._given

    def _login(self) -> Any:
        """Return credentials for a service that has no client here."""
        import google.auth

        own = self._credentials()
        if own is not None:
            return own
        credentials, _ = google.auth.default(scopes=[CLOUD_SCOPE])
        return credentials

    def _is_local(self) -> bool:
        return bool(self.endpoint) and urlparse(self.endpoint).hostname in LOOPBACK
