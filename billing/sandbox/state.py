"""Everything that the double knows, in memory, and in a file so that a restart forgets nothing."""

import json
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from threading import RLock
from typing import Any

from billing.sandbox.clock import SandboxClock
from billing.sandbox.faults import Faults
from billing.sandbox.records import (
    Checkout,
    Customer,
    Delivery,
    Invoice,
    Order,
    Settings,
    Subscription,
    Webhook,
    pack,
    unpack,
)

logger = logging.getLogger(__name__)

_TABLES: dict[str, type[Any]] = {
    "customers": Customer,
    "checkouts": Checkout,
    "orders": Order,
    "subscriptions": Subscription,
    "invoices": Invoice,
    "webhooks": Webhook,
    "deliveries": Delivery,
}
# All of them are written down with every change.
_REMEMBERED_DELIVERIES = 300


class State:
    """The store's records by id, its switches and its clock. Read and change them only while holding `lock`."""

    def __init__(self, store_id: int, clock: SandboxClock, faults: Faults, data_file: Path | None) -> None:
        self.store_id, self.clock, self.faults = store_id, clock, faults
        self.base_url = ""
        self.settings = Settings()
        self.customers: dict[int, Customer] = {}
        self.checkouts: dict[str, Checkout] = {}
        self.orders: dict[int, Order] = {}
        self.subscriptions: dict[int, Subscription] = {}
        self.invoices: dict[int, Invoice] = {}
        self.webhooks: dict[int, Webhook] = {}
        self.deliveries: dict[int, Delivery] = {}
        self.lock = RLock()
        # One row of numbers for everything: who takes an invoice's id for a subscription's finds nothing. It begins
        # anywhere, so that two shops that one database sees after each other do not share ids.
        self._last_id = 1_000_000 + secrets.randbelow(10**9)
        self._file = data_file
        self._depth = 0
        if data_file and data_file.exists():
            self._load_or_set_aside(data_file)

    def new_id(self) -> int:
        """A number that nothing else has."""
        self._last_id += 1
        return self._last_id

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock, and save what has changed at the end, whatever happened."""
        with self.lock:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if not self._depth:
                    self._forget_old_deliveries()
                    self._save()

    def _forget_old_deliveries(self) -> None:
        surplus = len(self.deliveries) - _REMEMBERED_DELIVERIES
        done = [id_ for id_, delivery in self.deliveries.items() if delivery.status != "pending"]
        for id_ in done[: max(surplus, 0)]:
            del self.deliveries[id_]

    def _save(self) -> None:
        if self._file is None:
            return
        data = {
            "offset_seconds": self.clock.offset.total_seconds(),
            "last_id": self._last_id,
            "faults": asdict(self.faults),
            "settings": asdict(self.settings),
            **{name: [pack(record) for record in getattr(self, name).values()] for name in _TABLES},
        }
        # Bodies hold signed links and webhooks hold secrets: nobody else may read it, not even for a moment.
        draft = self._file.with_name(f"{self._file.name}.new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(data, file)
        draft.replace(self._file)

    def _load_or_set_aside(self, file: Path) -> None:
        """Go on where the file ends. One that this program cannot read, such as an older one's, must not stop it."""
        try:
            self._load(json.loads(file.read_text()))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            aside = file.with_name(f"{file.name}.unreadable")
            file.replace(aside)
            logger.warning(
                "%s cannot be read (%s) and is now %s: the store begins empty.", file, type(error).__name__, aside.name
            )

    def _load(self, data: dict[str, Any]) -> None:
        # All of it is read before anything of it counts.
        ahead = timedelta(seconds=data["offset_seconds"]) - self.clock.offset
        last_id, faults, settings = int(data["last_id"]), Faults(**data["faults"]), Settings(**data["settings"])
        tables = {name: [unpack(kind, packed) for packed in data[name]] for name, kind in _TABLES.items()}
        self.clock.advance(max(ahead, timedelta(0)))
        self._last_id, self.settings = last_id, settings
        vars(self.faults).update(vars(faults))
        for name, records in tables.items():
            getattr(self, name).update({record.id: record for record in records})
