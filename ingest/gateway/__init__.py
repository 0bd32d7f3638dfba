"""The ingest gateway: a plain WSGI application in front of Django, for the paths where every microsecond counts."""
