"""Fixtures that last for the whole session, for all tests: servers are started once and stopped at the end."""

from postgres_server import postgres_dsn, postgres_url
from redis_server import redis_url
from stores import redis_store

__all__ = ["postgres_dsn", "postgres_url", "redis_store", "redis_url"]
