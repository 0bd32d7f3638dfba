"""Outgoing calls: what may be called, and what becomes of receivers that behave badly."""

import gzip
import socket
import threading
from ipaddress import ip_address
from time import monotonic

import httpcore2
import pytest
from pytest_socket import SocketConnectBlockedError

from opsmeter_site.lib import http
from opsmeter_site.lib.http import Blocked, TimedOut, TooLarge, Unreachable, check_url, is_public, post_json
from tests.alerts.receivers import answers, certificate, hangs, never_ends, raw_server, receiver

OK = b"HTTP/1.1 200 OK\r\n"
# For failures alone: what is called never ends by itself.
PATIENCE_SECONDS = 30


@pytest.fixture
def here(settings):
    """Receivers on this machine may be called."""
    settings.CHANNEL_HOSTS_ALLOWED = ["127.0.0.1"]


@pytest.fixture
def hurried(here, monkeypatch):
    """The whole call takes at most half a second."""
    monkeypatch.setattr(http, "TOTAL_SECONDS", 0.5)


@pytest.fixture
def names(monkeypatch):
    """A resolver with answers of its own: each name has a list of answers, one after the other, the last for ever."""
    known, asked, real = {}, [], socket.getaddrinfo

    def look_up(host, port, *args, **kwargs):
        if host not in known:
            return real(host, port, *args, **kwargs)
        asked.append(host)
        turns = known[host]
        answer = turns.pop(0) if len(turns) > 1 else turns[0]
        if isinstance(answer, Exception):
            raise answer
        return [
            (socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in answer
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    known["asked"] = asked
    return known


# --- What may be called ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook",
        "https://example.com:443/",
        "https://example.com:8443/a?b=c",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]/",
        "https://bücher.example.com/",
        "https://hooks.slack.com/services/T0/B0/x",
    ],
)
def test_public_addresses_may_be_called(url):
    assert check_url(url).host


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://example.com/", "https://"),
        ("ftp://example.com/", "https://"),
        ("example.com/hook", "https://"),
        ("", "https://"),
        ("https:///hook", "host"),
        ("https://user:secret@example.com/", "password"),
        ("https://example.com\\@evil.example/", "password"),
        ("https://exa mple.com/", "valid"),
        ("https://example.com\r\nX: y/", "valid"),
        ("https://%31%32%37.0.0.1/", "valid"),
        ("https://[::1/", "valid"),
        ("https://[fe80::1%25eth0]/", "valid"),
        ("https://１２７.0.0.1/", "valid"),
        ("https://example.com:99999/", "valid"),
        ("https://example.com:0/", "valid"),
        ("https://example.com:22/", "Port 22"),
        ("https://example.com:25/", "Port 25"),
        ("https://" + "a" * 2_000 + ".com/", "longer"),
        ("https://localhost/", "private network"),
        ("https://LOCALHOST./", "private network"),
        ("https://db/", "private network"),
        ("https://metadata.google.internal/", "private network"),
        ("https://printer.local/", "private network"),
        ("https://127.0.0.1/", "private or reserved"),
        ("https://127.1/", "private or reserved"),
        ("https://0x7f.1/", "private or reserved"),
        ("https://0x7f000001/", "private or reserved"),
        ("https://2130706433/", "private or reserved"),
        ("https://017700000001/", "private or reserved"),
        ("https://0177.0.0.01/", "valid"),
        ("https://127.0.0.1./", "private or reserved"),
        ("https://0/", "private or reserved"),
        ("https://0.0.0.0/", "private or reserved"),
        ("https://10.0.0.1/", "private or reserved"),
        ("https://172.16.0.1/", "private or reserved"),
        ("https://192.168.1.1/", "private or reserved"),
        ("https://169.254.169.254/latest/meta-data", "private or reserved"),
        ("https://100.64.0.1/", "private or reserved"),
        ("https://198.18.0.1/", "private or reserved"),
        ("https://224.0.0.1/", "private or reserved"),
        ("https://255.255.255.255/", "private or reserved"),
        ("https://[::1]/", "private or reserved"),
        ("https://[::]/", "private or reserved"),
        ("https://[::ffff:10.0.0.1]/", "private or reserved"),
        ("https://[::ffff:7f00:1]/", "private or reserved"),
        ("https://[::127.0.0.1]/", "private or reserved"),
        ("https://[64:ff9b::7f00:1]/", "private or reserved"),
        ("https://[64:ff9b:1::1]/", "private or reserved"),
        ("https://[2002:7f00:1::]/", "private or reserved"),
        ("https://[2001:0:7f00:1::]/", "private or reserved"),
        ("https://[fd00::1]/", "private or reserved"),
        ("https://[fe80::1]/", "private or reserved"),
        ("https://[fec0::1]/", "private or reserved"),
        ("https://[ff02::1]/", "private or reserved"),
        ("https://[2001:db8::1]/", "private or reserved"),
        ("https://1.2.3.4.5/", "valid address"),
        ("https://256.256.256.256/", "valid"),
        ("https://99999999999/", "valid address"),
    ],
)
def test_what_is_wrong_with_a_url_is_said(url, words):
    with pytest.raises(Blocked, match=words) as refusal:
        check_url(url)
    assert "secret" not in str(refusal.value)
    with pytest.raises(Blocked):
        post_json(url, {})


@pytest.mark.parametrize("address", ["64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1"])
def test_addresses_inside_addresses_count_as_what_they_carry(address):
    assert is_public(ip_address(address))


@pytest.mark.parametrize("entry", ["127.0.0.1", "127.0.0.1:8123"])
def test_the_operator_may_allow_a_host_or_one_port_of_it(settings, entry):
    settings.CHANNEL_HOSTS_ALLOWED = [entry]
    assert check_url("http://127.0.0.1:8123/hook").port == 8123


def test_another_port_is_not_allowed_along(settings):
    settings.CHANNEL_HOSTS_ALLOWED = ["127.0.0.1:8123"]
    with pytest.raises(Blocked):
        check_url("http://127.0.0.1:8124/hook")


# --- The guard at connect time --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["2606:4700::1111", "::ffff:192.168.0.1"], ["fe80::1%1"]]
)
def test_a_name_with_any_private_address_is_refused(names, addresses):
    names["hook.example.com"] = [addresses]
    with pytest.raises(Blocked, match="private or reserved"):
        post_json("https://hook.example.com/", {})


@pytest.mark.filterwarnings("ignore:A test tried to use")
def test_the_connection_goes_to_the_address_that_was_checked(names):
    names["hook.example.com"] = [["93.184.215.14"], ["127.0.0.1"]]
    # Nothing here leaves this machine, so the attempt itself is what can be seen.
    with pytest.raises(SocketConnectBlockedError, match=r"93\.184\.215\.14"):
        post_json("https://hook.example.com/", {})
    assert names["asked"] == ["hook.example.com"]


def test_tls_is_for_the_name_although_the_connection_is_to_its_address(names, settings, tmp_path, monkeypatch):
    made = certificate(tmp_path, "hook.example.com")
    monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
    http._tls.cache_clear()
    names["hook.example.com"] = names["other.example.com"] = [["127.0.0.1"]]
    with raw_server(answers(OK + b"Content-Length: 2\r\n\r\nok"), made.context) as port:
        settings.CHANNEL_HOSTS_ALLOWED = [f"hook.example.com:{port}", f"other.example.com:{port}"]
        assert post_json(f"https://hook.example.com:{port}/", {}).text == "ok"
        with pytest.raises(Unreachable, match="certificate is not valid"):
            post_json(f"https://other.example.com:{port}/", {})
    http._tls.cache_clear()


def test_the_library_connects_through_our_guard_alone(names, monkeypatch):
    """The seam to the library: should it ever connect by another way, no address would be checked."""
    seen = []
    monkeypatch.setattr(httpcore2.SyncBackend, "connect_tcp", lambda *args, **kwargs: seen.append(args))
    names["hook.example.com"] = [["127.0.0.1"]]
    with pytest.raises(Blocked):
        post_json("https://hook.example.com/", {})
    assert not seen


def test_a_second_address_is_tried_when_the_first_does_not_answer(names, settings):
    names["hook.example.com"] = [["::1", "127.0.0.1"]]
    with receiver() as there:
        settings.CHANNEL_HOSTS_ALLOWED = ["hook.example.com"]
        assert post_json(f"http://hook.example.com:{there.port}/", {}).status == 200


@pytest.mark.parametrize("failure", [socket.gaierror(-2, "unknown"), UnicodeError("label too long")])
def test_a_name_that_is_unknown(names, failure):
    names["hook.example.com"] = [failure]
    with pytest.raises(Unreachable, match="cannot be resolved"):
        post_json("https://hook.example.com/", {})


def test_a_resolver_that_hangs(monkeypatch):
    is_over = threading.Event()
    monkeypatch.setattr(http, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: is_over.wait(5) and [])
    with pytest.raises(TimedOut, match="name was not resolved"):
        post_json("https://hook.example.com/", {})
    is_over.set()


# --- Receivers ------------------------------------------------------------------------------------------------------


def test_what_is_sent_and_what_is_answered(here):
    with receiver() as there:
        there.answer(202, "taken", Retry_After="7")
        reply = post_json(there.url, {"a": "ä"}, {"X-One": "1"})
    assert (reply.status, reply.text, reply.retry_after) == (202, "taken", 7)
    (got,) = there.received
    assert (got.path, got.body) == ("/hook", '{"a":"ä"}'.encode())
    assert got.headers["content-type"] == "application/json"
    assert (got.headers["host"], got.headers["x-one"]) == (there.host, "1")
    assert (got.headers["accept-encoding"], got.headers["user-agent"]) == ("identity", "Opsmeter")


def test_bytes_are_sent_as_they_are(here):
    with receiver() as there:
        post_json(there.url, b'{ "a" : 1 }')
    assert there.received[0].body == b'{ "a" : 1 }'


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_an_answer(here, status):
    with receiver() as there, receiver() as elsewhere:
        there.answer(status, Location=elsewhere.url)
        assert post_json(there.url, {}).status == status
    assert not elsewhere.received


def test_proxies_of_the_environment_are_not_used(here, monkeypatch):
    with receiver() as proxy, receiver() as there:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://{proxy.host}")
        assert post_json(there.url, {}).status == 200
    assert not proxy.received


@pytest.mark.parametrize(
    "behave",
    [
        hangs,
        never_ends(b"", b"H", pause=0.1),
        never_ends(OK, b"X", pause=0.1),
        never_ends(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.1),
    ],
    ids=["hangs", "drips its status", "drips a header", "continues"],
)
def test_the_whole_call_has_an_end(hurried, behave):
    with raw_server(behave) as port:
        began = monotonic()
        with pytest.raises(TimedOut, match="no complete answer"):
            post_json(f"http://127.0.0.1:{port}/", {})
        assert monotonic() - began < PATIENCE_SECONDS


@pytest.mark.parametrize(
    ("behave", "text"),
    [
        (never_ends(OK + b"Content-Length: 3000\r\n\r\n", b"x", pause=0.1), "xxx"),
        (never_ends(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", pause=0.1), "xxx"),
        (answers(OK + b"Content-Length: 50\r\n\r\nshort"), "short"),
        (answers(OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nfoo\r\nnonsense"), "foo"),
    ],
    ids=["drips", "drips chunks", "breaks off", "breaks the format"],
)
def test_a_body_that_does_not_come_takes_no_status_back(hurried, behave, text):
    with raw_server(behave) as port:
        began = monotonic()
        reply = post_json(f"http://127.0.0.1:{port}/", {})
        assert monotonic() - began < PATIENCE_SECONDS
    assert reply.status == 200
    assert reply.text.startswith(text)


def test_a_tls_handshake_that_never_comes(here, monkeypatch):
    monkeypatch.setattr(http, "CONNECT_SECONDS", 0.2)
    with raw_server(hangs) as port, pytest.raises(TimedOut, match="connection"):
        post_json(f"https://127.0.0.1:{port}/", {})


def test_a_body_that_never_ends_is_cut(hurried):
    with raw_server(never_ends(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"400\r\n" + b"y" * 1024 + b"\r\n")) as port:
        reply = post_json(f"http://127.0.0.1:{port}/", {})
    assert (reply.status, reply.text) == (200, "y" * http.LONGEST_TEXT)


@pytest.mark.parametrize("piece", [b"X-Again: " + b"z" * 1000 + b"\r\n", b"z" * 1000])
def test_headers_that_never_end(here, piece):
    with raw_server(never_ends(OK, piece)) as port, pytest.raises(TooLarge):
        post_json(f"http://127.0.0.1:{port}/", {})


def test_interim_answers_that_never_end(here):
    with raw_server(never_ends(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n")) as port, pytest.raises(TooLarge):
        post_json(f"http://127.0.0.1:{port}/", {})


def test_nothing_is_unpacked(here):
    bomb = gzip.compress(b"0" * 10_000_000)
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    with raw_server(answers(head + bomb)) as port:
        assert post_json(f"http://127.0.0.1:{port}/", {}).text == "(a compressed answer)"


def test_any_bytes_become_text_that_can_be_stored(here):
    with raw_server(answers(OK + b"Content-Length: 9\r\n\r\nok\xff\x00\x1b[0m\n")) as port:
        assert post_json(f"http://127.0.0.1:{port}/", {}).text == "ok���[0m\n"


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", OK + b"Content-Length: 50\r\n", b"\x15\x03\x01\x00\x02\x02"]
)
def test_what_is_no_http(here, answer):
    with raw_server(answers(answer)) as port, pytest.raises(Unreachable, match="not HTTP"):
        post_json(f"http://127.0.0.1:{port}/", {})


def test_a_refused_connection(here):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unreachable, match="connection was refused"):
        post_json(f"http://127.0.0.1:{port}/secret-part", {})


def test_a_certificate_that_nobody_vouches_for(here, tmp_path):
    context = certificate(tmp_path, "127.0.0.1").context
    with raw_server(hangs, context) as port, pytest.raises(Unreachable, match="certificate is not valid: self-signed"):
        post_json(f"https://127.0.0.1:{port}/", {})


def test_a_host_that_speaks_no_tls(here):
    def refuses(connection):
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with raw_server(refuses) as port, pytest.raises(Unreachable, match="no TLS"):
        post_json(f"https://127.0.0.1:{port}/", {})


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        ("9" * 5_000, 86_400),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("²", None),
        ("", None),
    ],
)
def test_when_to_come_back(here, header, seconds):
    with raw_server(
        answers(OK + b"Content-Length: 0\r\nRetry-After: " + header.encode("latin-1") + b"\r\n\r\n")
    ) as port:
        assert post_json(f"http://127.0.0.1:{port}/", {}).retry_after == seconds
