"""A mail server in a process of its own that keeps nothing but how often each address got mail."""

import asyncio
import json
import smtplib
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Received:
    """How many mails came, to how many addresses, and how many addresses got more than one."""

    mails: int
    addresses: int
    repeated: int


class MailSink:
    """The sink's process, seen from outside."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.email_url = f"smtp://127.0.0.1:{port}"

    def received(self) -> Received:
        """What has come so far."""
        with smtplib.SMTP("127.0.0.1", self._port, timeout=30) as session:
            _, answer = session.docmd("STAT")
        return Received(**json.loads(answer))


@contextmanager
def mail_sink() -> Iterator[MailSink]:
    """A sink for as long as the block lasts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "bench.mail_sink", str(port)])
    sink = MailSink(port)
    try:
        _wait(sink)
        yield sink
    finally:
        process.terminate()
        process.wait(10)


def _wait(sink: MailSink) -> None:
    for _ in range(100):
        try:
            sink.received()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("the mail sink did not start")


_received: Counter[str] = Counter()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One SMTP session."""
    recipients: list[str] = []
    writer.write(b"220 sink\r\n")
    while line := (await reader.readline()).decode().strip():
        verb = line[:4].upper()
        if verb == "RCPT":
            recipients.append(line.partition("<")[2].partition(">")[0])
        elif verb == "DATA":
            writer.write(b"354 go on\r\n")
            await reader.readuntil(b"\r\n.\r\n")
            _received.update(recipients)
            recipients.clear()
        writer.write(_answer(verb))
        await writer.drain()
        if verb == "QUIT":
            break
    writer.close()


def _answer(verb: str) -> bytes:
    if verb == "QUIT":
        return b"221 bye\r\n"
    if verb != "STAT":
        return b"250 ok\r\n"
    repeated = sum(times > 1 for times in _received.values())
    counts = {"mails": _received.total(), "addresses": len(_received), "repeated": repeated}
    return f"250 {json.dumps(counts)}\r\n".encode()


async def _run(port: int) -> None:
    # Mails are longer than the usual limit of what a reader holds.
    server = await asyncio.start_server(_serve, "127.0.0.1", port, limit=2**24)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_run(int(sys.argv[1])))
