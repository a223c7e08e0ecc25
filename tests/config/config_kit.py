"""What the tests of a configuration share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ckpt.config import load
from ckpt.errors import InvalidInputError

POSTGRES = "postgresql://db.example/agents"
SECRET = "hunter2-correct-horse"


def refused(source: Any, environment: Mapping[str, str] | None = None) -> str:
    """Return the message and the hints of the error that a configuration causes."""
    with pytest.raises(InvalidInputError) as caught:
        load(source, environment=environment or {})
    return " | ".join([str(caught.value), *caught.value.hints])
