"""Signed links that expire, as the provider's hosted pages have them."""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import urlencode

from billing.sandbox.clock import SandboxClock
from billing.sandbox.errors import LinkRefused


class Links:
    """Makes and checks links of one store. They expire by the double's clock."""

    def __init__(self, api_key: str, clock: SandboxClock) -> None:
        # Made of the key, so that links are still good after a restart.
        self._secret = hashlib.sha256(b"links:" + api_key.encode()).digest()
        self._clock = clock

    def sign(self, path: str, expires_at: datetime | None = None, **extra: str) -> str:
        """The path with its query: `expires` (if it ends), what is extra, and `signature`."""
        expiry = {"expires": str(int(expires_at.timestamp()))} if expires_at else {}
        signed = expiry | extra
        return f"{path}?{urlencode(signed | {'signature': self._signature(path, signed)})}"

    def check(self, path: str, args: Mapping[str, str]) -> None:
        """Raises `LinkRefused` unless this path was signed with exactly these arguments, and still holds."""
        signed = {name: value for name, value in args.items() if name != "signature"}
        if not hmac.compare_digest(args.get("signature", "").encode(), self._signature(path, signed).encode()):
            raise LinkRefused("Invalid signature.")
        if "expires" in signed and int(signed["expires"]) <= self._clock.now().timestamp():
            raise LinkRefused("This link has expired.")

    def _signature(self, path: str, signed: Mapping[str, str]) -> str:
        message = f"{path}?{urlencode(sorted(signed.items()))}"
        return hmac.new(self._secret, message.encode(), hashlib.sha256).hexdigest()
