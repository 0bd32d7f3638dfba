"""The mail of a local installation, read in the browser."""

import base64
import re
import stat
from email.mime.image import MIMEImage
from pathlib import Path

import pytest
from django.core.mail import EmailMultiAlternatives, send_mail
from django.test import Client

from opsmeter_site.console import outbox

pytestmark = pytest.mark.django_db
BACKEND = "opsmeter_site.console.outbox.OutboxBackend"


@pytest.fixture
def folder(settings, tmp_path) -> Path:
    settings.OPSMETER_ENV = "local"
    settings.EMAIL_BACKEND = BACKEND
    settings.OUTBOX_DIR = tmp_path / "var" / "outbox"
    return settings.OUTBOX_DIR


def mail(subject="Hello", text="Text", to="ada@example.com"):
    send_mail(subject, text, None, [to])


def opened(client=None):
    """The page of the newest mail."""
    client = client or Client()
    path = re.search(r'href="(/outbox/[^"]+)"', client.get("/outbox/").content.decode())[1]
    return client.get(path).content.decode()


def test_mails_are_listed_newest_first_without_signing_in(folder):
    assert "No mail yet" in Client().get("/outbox/").content.decode()
    mail("First")
    mail("Second", to="bob@example.com")
    page = Client().get("/outbox/").content.decode()
    assert page.index("Second") < page.index("First")
    assert "bob@example.com" in page
    assert "local installation" in page


def test_links_can_be_followed_and_everything_else_is_only_text(folder):
    mail("<b>Grüße</b>", "Open http://testserver/accounts/login/?a=1&b=2 now.\n<script>alert(1)</script>")
    page = opened()
    assert '<a href="http://testserver/accounts/login/?a=1&amp;b=2"' in page
    assert "<script>alert" not in page
    assert "&lt;b&gt;Grüße&lt;/b&gt;" in page


PNG = b"\x89PNG\r\n\x1a\n-a-picture"


def mail_with_parts(html="<p>The <b>HTML</b></p>", **headers):
    message = EmailMultiAlternatives("Two parts", "The text", None, ["ada@example.com"], headers=headers)
    message.attach_alternative(html, "text/html")
    for kind in ("png", "svg+xml"):
        picture = MIMEImage(PNG, kind)
        picture["Content-ID"] = f"<chart-{kind}@opsmeter>"
        message.attach(picture)
    message.send()


def frame_of(page_text):
    """The address of the frame in a mail's page."""
    return re.search(r'<iframe[^>]* src="([^"]+)"[^>]* sandbox="([^"]*)"', page_text, re.DOTALL).groups()


def test_of_a_mail_with_two_parts_both_can_be_seen(folder):
    mail_with_parts("<p>The <b>HTML</b></p><img src=//elsewhere.example/x>")
    page = opened()
    assert "elsewhere.example" not in page
    assert "The text" not in page
    address, sandbox = frame_of(page)
    assert "allow-scripts" not in sandbox
    assert "allow-same-origin" not in sandbox
    assert "<b>HTML</b>" in Client().get(address).content.decode()
    path = address.removesuffix("html/")
    assert f'href="{path}"' in page
    assert "The text" in Client().get(f"{path}?as=text").content.decode()


def test_the_html_of_a_mail_can_do_nothing(folder):
    mail_with_parts("<script>alert(1)</script><form action=/accounts/logout/ method=post>")
    response = Client().get(frame_of(opened())[0])
    policy = dict(part.split(" ", 1) for part in response["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert "script-src" not in policy
    assert policy["img-src"] == "data:"
    assert policy["frame-ancestors"] == "'self'"
    assert policy["sandbox"] == "allow-popups allow-popups-to-escape-sandbox"
    assert response["X-Frame-Options"] == "SAMEORIGIN"


def test_pictures_that_came_along_are_shown_and_nothing_that_could_be_a_program(folder):
    mail_with_parts('<img src="cid:chart-png@opsmeter"><img src="cid:chart-svg+xml@opsmeter"><img src="cid:other">')
    html = Client().get(frame_of(opened())[0]).content.decode()
    assert f"data:image/png;base64,{base64.b64encode(PNG).decode()}" in html
    assert "cid:chart-svg+xml@opsmeter" in html
    assert "cid:other" in html


def test_the_headers_for_unsubscribing_are_shown(folder):
    unsubscribe = {"List-Unsubscribe": "<https://ops.example.com/mail/unsubscribe/x/>"}
    mail_with_parts(**unsubscribe, **{"List-Unsubscribe-Post": "List-Unsubscribe=One-Click"})
    page = opened()
    assert "&lt;https://ops.example.com/mail/unsubscribe/x/&gt;" in page
    assert "List-Unsubscribe=One-Click" in page


def test_a_mail_of_text_alone_has_no_html(folder):
    mail()
    page = opened()
    assert "<iframe" not in page
    path = re.search(r'href="(/outbox/[^"]+)"', Client().get("/outbox/").content.decode())[1]
    assert Client().get(f"{path}html/").status_code == 404


def test_the_files_are_private(folder):
    mail()
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_oldest_mails_make_room(folder, monkeypatch):
    monkeypatch.setattr(outbox, "KEPT", 2)
    for subject in ("First", "Second", "Third"):
        mail(subject)
    page = Client().get("/outbox/").content.decode()
    assert "First" not in page
    assert "Third" in page


def test_the_list_refreshes_itself_only_when_there_is_something_new(folder):
    mail("First")
    client = Client(headers={"HX-Request": "true"})
    url = re.search(r'hx-get="([^"]+)"', client.get("/outbox/").content.decode())[1]
    assert client.get(url).status_code == 204
    mail("Second")
    fresh = client.get(url)
    assert fresh.status_code == 200
    assert "<html" not in fresh.content.decode()
    assert "Second" in fresh.content.decode()


@pytest.mark.parametrize("environment", ["production", "test"])
def test_elsewhere_there_is_no_outbox(folder, settings, environment):
    mail()
    path = re.search(r'href="(/outbox/[^"]+)"', Client().get("/outbox/").content.decode())[1]
    settings.OPSMETER_ENV = environment
    assert [Client().get(each).status_code for each in ("/outbox/", path, f"{path}html/")] == [404, 404, 404]


def test_other_machines_see_nothing(folder):
    mail()
    assert Client(REMOTE_ADDR="192.168.1.7").get("/outbox/").status_code == 404
    assert Client(REMOTE_ADDR="::1").get("/outbox/").status_code == 200


@pytest.mark.parametrize("mail_id", ["nothing", "..%2Fsecrets", "*"])
def test_a_mail_that_is_not_there(folder, mail_id):
    mail()
    assert Client().get(f"/outbox/{mail_id}/").status_code == 404


def test_where_mail_is_really_sent_the_page_says_so(folder, settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    assert "Mail goes elsewhere" in Client().get("/outbox/").content.decode()
