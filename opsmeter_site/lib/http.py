"""Calls to addresses that customers typed: one POST, to public addresses only, within fixed limits.

What an address leads to is checked where the connection is made: a name is looked up once, every answer must be public,
and the connection goes to an answer that was checked. Redirects are answers, proxies of the environment are not used.
"""

import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any

import httpcore2
import httpx2
from django.conf import settings

from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.wire import encode

CONNECT_SECONDS = 3.0
TOTAL_SECONDS = 10.0
LONGEST_TEXT = 4 * 1024  # bytes
LONGEST_URL = 2_000
LONGEST_RETRY_AFTER = 24 * 3_600  # seconds
_MOST_READ = 64 * 1024  # bytes, headers included
_AT_ONCE = 16 * 1024  # bytes
_HTTPS_PORT = 443
_FIRST_FREE_PORT = 1_024
_LAST_PORT = 65_535

_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|[0-9a-f:.]*:[0-9a-f:.]*", re.IGNORECASE)
# How the last label of a name looks that system libraries read as an IPv4 address: 127.1, 0x7f000001, 017700000001.
_NUMERIC_END = re.compile(r"(^|\.)(0x[0-9a-f]*|[0-9]+)\.?$", re.IGNORECASE)
_PRIVATE_ENDINGS = (".localhost", ".local", ".localdomain", ".internal", ".intranet", ".lan", ".home.arpa", ".corp")
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")

Address = IPv4Address | IPv6Address


class HttpError(Exception):
    """Why there is no answer, in a sentence for people. It never holds the URL, which may be a secret."""


class Blocked(HttpError):
    """The URL is none that may be called."""


class TimedOut(HttpError):
    """It took too long, in one piece or many small ones."""


class Unreachable(HttpError):
    """No connection, no valid certificate, or no HTTP."""


class TooLarge(HttpError):
    """The answer's head goes on and on."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of any status. `text` is the beginning of its body, as text that can be stored."""

    status: int
    text: str
    retry_after: int | None


def post_json(url: str, body: bytes | Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Reply:
    """POST `body` and return the answer, whatever its status. Raises `HttpError`."""
    parsed = check_url(url)
    sent = {
        "Host": parsed.netloc.decode("ascii"),
        "Content-Type": "application/json",
        "Accept": "*/*",
        # Nothing is ever unpacked, so a small answer cannot become a large one.
        "Accept-Encoding": "identity",
        "User-Agent": "Opsmeter",
        **(headers or {}),
    }
    target = httpcore2.URL(
        scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path or b"/"
    )
    content = body if isinstance(body, bytes) else encode(body)
    guard = _Guard(_Deadline(TOTAL_SECONDS))
    with (
        _as_http_errors(),
        httpcore2.ConnectionPool(ssl_context=_tls(), network_backend=guard) as pool,
        pool.stream("POST", target, headers=list(sent.items()), content=content) as response,
    ):
        answered = {name.lower().decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
        is_packed = answered.get("content-encoding", "identity").lower() != "identity"
        text = "(a compressed answer)" if is_packed else _beginning(response.iter_stream())
        return Reply(response.status, text, _retry_after(answered.get("retry-after", "")))


def check_url(url: str) -> httpx2.URL:
    """The parsed URL if it looks like one that may be called. Raises `Blocked`. Looks no name up."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        raise Blocked("This is not a valid URL.") from None
    host = parsed.raw_host.decode("ascii").lower()
    if len(url) > LONGEST_URL:
        raise Blocked(f"The URL is longer than {LONGEST_URL:,} characters.")
    if parsed.scheme not in ("http", "https") or not host:
        raise Blocked("The URL must begin with https:// and a host.")
    if not _HOST.fullmatch(host) or (parsed.port is not None and not 1 <= parsed.port <= _LAST_PORT):
        raise Blocked("This is not a valid URL.")
    if parsed.userinfo:
        raise Blocked("A URL with a user name or password in it is not called.")
    if not _is_exempt(host, parsed.port or (_HTTPS_PORT if parsed.scheme == "https" else 80)):
        _check_public(parsed, host)
    return parsed


def _check_public(parsed: httpx2.URL, host: str) -> None:
    if parsed.scheme != "https":
        raise Blocked("The URL must begin with https://.")
    if parsed.port is not None and parsed.port != _HTTPS_PORT and parsed.port < _FIRST_FREE_PORT:
        raise Blocked(f"Port {parsed.port} is not called: only {_HTTPS_PORT}, or {_FIRST_FREE_PORT} and above.")
    address = _literal(host)
    if address is not None:
        if not is_public(address):
            raise Blocked("This is a private or reserved address. Only public ones are called.")
        return
    name = host.rstrip(".")
    if "." not in name or name.endswith(_PRIVATE_ENDINGS):
        raise Blocked("This name belongs to a private network. Only public hosts are called.")


def _literal(host: str) -> Address | None:
    """The address that `host` is, in any notation; None for a name. Raises `Blocked` for a broken address."""
    try:
        if ":" in host:
            return ip_address(host)
        if _NUMERIC_END.search(host):
            return IPv4Address(socket.inet_aton(host.rstrip(".")))
    except (OSError, ValueError):
        raise Blocked("This is not a valid address.") from None
    return None


def is_public(address: Address) -> bool:
    """Whether anybody on the internet is meant to reach it; addresses inside addresses count as what they carry."""
    if isinstance(address, IPv6Address):
        carried = _carried(address)
        if carried is not None:
            return is_public(carried)
        if address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _carried(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _is_exempt(host: str, port: int) -> bool:
    shown = f"[{host}]" if ":" in host else host
    return not {shown, f"{shown}:{port}"}.isdisjoint(settings.CHANNEL_HOSTS_ALLOWED)


class _Deadline:
    """One end for everything that belongs to a call, however small the pieces."""

    def __init__(self, seconds: float) -> None:
        self._end = monotonic() + seconds

    def left(self, at_most: float = TOTAL_SECONDS) -> float:
        """The seconds that remain. Raises `TimedOut` when there are none."""
        left = self._end - monotonic()
        if left <= 0:
            raise TimedOut(f"There was no complete answer within {TOTAL_SECONDS:.0f} seconds.")
        return min(left, at_most)


class _Guard(httpcore2.NetworkBackend):
    """Connects to public addresses, and to those that the operator allows."""

    def __init__(self, deadline: _Deadline) -> None:
        self._deadline = deadline
        self._backend = httpcore2.SyncBackend()

    def connect_tcp(self, host: str, port: int, *_args: Any, **_kwargs: Any) -> httpcore2.NetworkStream:
        """A connection to an address that was checked. Raises `HttpError`."""
        addresses = _look_up(host, port, self._deadline)
        if not _is_exempt(host.lower(), port) and not all(is_public(each) for each in addresses):
            raise Blocked("The host has a private or reserved address. Only public ones are called.")
        share = CONNECT_SECONDS / len(addresses)
        for address in addresses[:-1]:
            try:
                return self._connect(address, port, share)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return self._connect(addresses[-1], port, share)

    def _connect(self, address: Address, port: int, seconds: float) -> httpcore2.NetworkStream:
        stream = self._backend.connect_tcp(str(address), port, timeout=self._deadline.left(seconds))
        return _LimitedStream(stream, self._deadline)


class _LimitedStream(httpcore2.NetworkStream):
    """A connection that ends at the deadline, and after so many bytes."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: _Deadline) -> None:
        self._stream, self._deadline = stream, deadline
        self._bytes_read = 0

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._stream.read(min(max_bytes, _AT_ONCE), self._deadline.left())
        self._bytes_read += len(data)
        if self._bytes_read > _MOST_READ:
            raise TooLarge("The head of the answer does not end.")
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # In pieces: a receiver that hardly reads would stretch the time of one large write.
        for start in range(0, len(buffer), _AT_ONCE):
            self._stream.write(buffer[start : start + _AT_ONCE], self._deadline.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left(CONNECT_SECONDS))
        return _LimitedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _look_up(host: str, port: int, deadline: _Deadline) -> list[Address]:
    """The host's addresses. A thread asks, because the system's resolver knows no deadline."""
    answers: SimpleQueue[list[Any] | Exception] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    Thread(target=ask, daemon=True).start()
    try:
        found = answers.get(timeout=deadline.left(CONNECT_SECONDS))
    except Empty:
        raise TimedOut(f"The host's name was not resolved within {CONNECT_SECONDS:.0f} seconds.") from None
    if isinstance(found, Exception) or not found:
        raise Unreachable("The host's name cannot be resolved.")
    return list(dict.fromkeys(ip_address(entry[4][0]) for entry in found))


@contextmanager
def _as_http_errors() -> Iterator[None]:
    try:
        yield
    except httpcore2.ConnectTimeout as error:
        raise TimedOut(f"There was no connection within {CONNECT_SECONDS:.0f} seconds.") from error
    except httpcore2.TimeoutException as error:
        raise TimedOut(f"There was no complete answer within {TOTAL_SECONDS:.0f} seconds.") from error
    except httpcore2.ConnectError as error:
        raise Unreachable(_connection_failure(error)) from error
    except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
        raise Unreachable("The connection broke off, or what came was not HTTP.") from error


def _connection_failure(error: httpcore2.ConnectError) -> str:
    # The library hands the first error on as the argument of its own.
    cause = error.args[0] if error.args else None
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"The certificate is not valid: {cause.verify_message}."
    if isinstance(cause, ssl.SSLError):
        return "There was no TLS connection."
    if isinstance(cause, ConnectionRefusedError):
        return "The connection was refused."
    return "There was no connection."


@cache
def _tls() -> ssl.SSLContext:
    return httpcore2.default_ssl_context()


def _beginning(chunks: Iterator[bytes]) -> str:
    """Up to `LONGEST_TEXT` bytes as text. The rest is not read: whoever sends for ever speaks to nobody."""
    data = b""
    # The status is there: a body that drips, breaks off or is broken takes nothing back.
    with suppress(HttpError, httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError):
        for chunk in chunks:
            data += chunk
            if len(data) >= LONGEST_TEXT:
                break
    text = data[:LONGEST_TEXT].decode("utf-8", errors="replace")
    # PostgreSQL stores no NUL characters, and other control characters have no place on a page.
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\N{REPLACEMENT CHARACTER}" for sign in text)


def _retry_after(value: str) -> int | None:
    """The seconds that the header asks for, as a number or a date; None if it says neither."""
    value = value.strip()
    if value.isascii() and value.isdecimal():
        return LONGEST_RETRY_AFTER if len(value) > len(str(LONGEST_RETRY_AFTER)) else _within(int(value))
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return None if moment.tzinfo is None else _within((moment - utc_now()).total_seconds())


def _within(seconds: float) -> int:
    return max(0, min(round(seconds), LONGEST_RETRY_AFTER))
