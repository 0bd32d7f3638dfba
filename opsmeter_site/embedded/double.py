"""`up --billing-sandbox`: the local double of Lemon Squeezy as a program, and what the product is told of it."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from opsmeter_site.embedded.folder import DataFolder, read_json, write_private_json
from opsmeter_site.embedded.preflight import free_port
from opsmeter_site.embedded.processes import Program

HOST = "127.0.0.1"
MOST_SECRET_CHARACTERS = 40  # of a webhook's secret, at the provider


@dataclass(frozen=True)
class Double:
    """Where the double listens, where it keeps its state, and the settings with which the product finds it."""

    port: int
    data: Path
    settings: Mapping[str, str] = field(repr=False)

    @property
    def url(self) -> str:
        """Its control panel."""
        return f"http://{HOST}:{self.port}"

    def program(self, webhook_url: str, environment: Mapping[str, str]) -> Program:
        """The double as a process. It reads the key and the secret from the environment, as the product does."""
        command = [sys.executable, "-m", "billing.sandbox", "--port", str(self.port), "--data", str(self.data)]
        return Program("sandbox", (*command, "--webhook-url", webhook_url), environment)


def double_of(folder: DataFolder) -> Double:
    """The double of a data folder, at the same port each time if that is still free."""
    port = usual_port(folder.path / "sandbox.json")
    settings = {
        "LEMONSQUEEZY_API_BASE": f"http://{HOST}:{port}/v1",
        "LEMONSQUEEZY_API_KEY": folder.secret("sandboxApiKey"),
        "LEMONSQUEEZY_WEBHOOK_SECRET": folder.secret("sandboxWebhookSecret")[:MOST_SECRET_CHARACTERS],
        "LEMONSQUEEZY_STORE_ID": "1",
        "LEMONSQUEEZY_TEST_MODE": "true",
    }
    return Double(port, folder.path / "sandbox", settings)


def usual_port(file: Path) -> int:
    """The port that the file remembers, if nobody has taken it; otherwise a free one, remembered from now on."""
    remembered = read_json(file)
    if remembered is not None:
        try:
            return free_port(HOST, remembered["port"])
        except OSError:
            pass
    port = free_port(HOST)
    write_private_json(file, {"port": port})
    return port
