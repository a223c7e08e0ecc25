"""What lasts for the whole session, for all tests: servers are started once and stopped at the end."""

import os

from hypothesis import settings
from postgres_server import admin, postgres_dsn, postgres_url
from redis_server import redis_url
from stores import redis_store

__all__ = ["admin", "postgres_dsn", "postgres_url", "redis_store", "redis_url"]

# Users' programs are buffered: what comes in the wrong order then is to be seen here.
os.environ.pop("PYTHONUNBUFFERED", None)

settings.register_profile("anywhere", deadline=None)
# What CI says about a commit does not depend on chance; everywhere else each run tries other examples.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "anywhere")
