"""The double as a web application: the API and its pages."""

from flask import Flask

from billing.sandbox.api import make_api
from billing.sandbox.pages import make_pages
from billing.sandbox.shop import Shop


def create_app(shop: Shop) -> Flask:
    """The application of one shop. `shop.base_url` says where it will be served."""
    app = Flask(__name__, static_folder=None)
    # The provider's documents keep their own order of keys.
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.register_blueprint(make_api(shop))
    app.register_blueprint(make_pages(shop))
    return app
