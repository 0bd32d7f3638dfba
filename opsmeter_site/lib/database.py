"""How code that speaks psycopg directly reaches the database that Django is configured for."""

from django.db import connection
from psycopg.conninfo import make_conninfo


def conninfo() -> str:
    """A libpq connection string for Django's default database."""
    parameters = connection.get_connection_params()
    wanted = ("host", "port", "dbname", "user", "password", "sslmode", "sslrootcert", "connect_timeout")
    return make_conninfo(**{name: parameters[name] for name in wanted if parameters.get(name) is not None})
