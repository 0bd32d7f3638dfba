"""What the receivers of each kind of channel document, and whether a payload is that."""

import json
from email.message import Message as ParsedMail
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

TEAMS_BYTES = 28 * 1024


def check(kind: str, body: bytes) -> dict[str, Any]:
    """The payload in `body`, if the receiver's document allows it; fails otherwise."""
    payload: dict[str, Any] = json.loads(body)
    faults = [f"{fault.json_path}: {fault.message}" for fault in _validator(kind).iter_errors(payload)]
    assert not faults, faults
    if kind == "teams":
        assert len(body) <= TEAMS_BYTES
    return payload


@cache
def _validator(kind: str) -> Draft202012Validator:
    schema = json.loads((Path(__file__).parent / f"{kind}.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def check_mail(mail: ParsedMail, delivery_id: str, *, is_subscribed: bool) -> None:
    """RFC 5322, 2387 (pictures inside), 3834 (no answer wanted), 2369 and 8058 (unsubscribing by one click)."""
    assert mail["Message-ID"].startswith(f"<{delivery_id}@")
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["X-Opsmeter-Delivery"] == delivery_id
    assert mail["Subject"]
    assert mail["To"]
    parts = {part.get_content_type() for part in mail.walk()}
    assert {"multipart/alternative", "text/plain", "text/html"} <= parts
    html = next(part for part in mail.walk() if part.get_content_type() == "text/html")
    shown = html.get_payload(decode=True).decode()
    for picture in (part for part in mail.walk() if part.get_content_maintype() == "image"):
        assert mail.get_content_type() == "multipart/related"
        assert f"cid:{picture['Content-ID'].strip('<>')}" in shown
    assert (mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click") == is_subscribed
    assert bool(mail["List-Unsubscribe"]) == is_subscribed
