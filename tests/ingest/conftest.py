from collections.abc import Iterator

import pytest

from ingest import pricing
from ingest.models import CatalogVersion, ModelAlias, ModelPrice
from tests.factories import UserFactory
from workspaces.models import User


@pytest.fixture
def empty_catalogue(db: None) -> Iterator[None]:
    """No prices at all, and no price book of another test."""
    ModelPrice.objects.all().delete()
    ModelAlias.objects.all().delete()
    CatalogVersion.objects.all().delete()
    pricing.forget_book()
    yield
    pricing.forget_book()


@pytest.fixture
def operator(db: None) -> User:
    """A person who runs the service."""
    return UserFactory(is_staff=True)
