"""Receivers on this machine: one that keeps what it gets, and some that behave badly."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from opsmeter_site.lib.clock import utc_now

Behaviour = Callable[[socket.socket], None]


@dataclass
class Received:
    """One request; header names in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """A web server that answers every POST as it is told and keeps what it got; an idempotent one counts `ids`."""

    port: int
    status: int = 200
    text: str = "ok"
    pause_seconds: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)

    @property
    def host(self) -> str:
        """For `CHANNEL_HOSTS_ALLOWED`."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/hook"

    @property
    def ids(self) -> set[str]:
        """The `webhook-id`s seen so far."""
        return {each.headers.get("webhook-id", "") for each in self.received}

    def answer(self, status: int, text: str = "", **headers: str) -> None:
        """Answer so from now on; `retry_after="5"` becomes the header Retry-After."""
        self.status, self.text = status, text
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver for as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            kept.received.append(Received(self.path, headers, body))
            threading.Event().wait(kept.pause_seconds)
            text = kept.text.encode()
            self.send_response(kept.status)
            for name, value in kept.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    kept = Receiver(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def raw_server(behave: Behaviour, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A port whose every connection is handed to `behave`, over TLS with a `context`."""
    listener = socket.create_server(("127.0.0.1", 0))
    is_over = threading.Event()
    listener.settimeout(0.02)

    def serve_one(connection: socket.socket) -> None:
        try:
            with context.wrap_socket(connection, server_side=True) if context else connection as stream:
                behave(stream)
        except OSError:
            pass  # the other side has left

    def serve() -> None:
        while not is_over.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            connection.settimeout(5)
            threading.Thread(target=serve_one, args=[connection], daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        is_over.set()
        thread.join()
        listener.close()


def _read_request(connection: socket.socket) -> None:
    """All of it: closing a connection with something unread would tear down what was answered."""
    read = b""
    while b"\r\n\r\n" not in read:
        read += connection.recv(65_536) or b"\r\n\r\n"
    head, _, body = read.partition(b"\r\n\r\n")
    length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
    missing = int(length.partition(b":")[2]) - len(body)
    while missing > 0 and (more := connection.recv(65_536)):
        missing -= len(more)


def answers(*pieces: bytes, pause: float = 0.0) -> Behaviour:
    """Reads the request, then sends the pieces one by one, `pause` seconds apart."""

    def behave(connection: socket.socket) -> None:
        _read_request(connection)
        for piece in pieces:
            connection.sendall(piece)
            threading.Event().wait(pause)

    return behave


def never_ends(head: bytes, piece: bytes, pause: float = 0.0) -> Behaviour:
    """Sends `head` and then `piece` for ever."""

    def behave(connection: socket.socket) -> None:
        _read_request(connection)
        connection.sendall(head)
        while True:
            connection.sendall(piece)
            threading.Event().wait(pause)

    return behave


def hangs(connection: socket.socket) -> None:
    """Reads and never answers, until the other side has gone."""
    while connection.recv(65_536):
        pass


@dataclass(frozen=True)
class Certificate:
    """A certificate that vouches for itself, for one host."""

    authority: Path
    context: ssl.SSLContext


def certificate(folder: Path, host: str) -> Certificate:
    """Make one."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Opsmeter tests")])
    is_address = host.replace(".", "").isdigit()
    subject = x509.IPAddress(ip_address(host)) if is_address else x509.DNSName(host)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(utc_now() - timedelta(days=1))
        .not_valid_after(utc_now() + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([subject]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / f"{host}.pem", folder / f"{host}.key"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return Certificate(public, context)
