"""Make the kept store of this format and what it is expected to hold: `python tests/format/make_fixture.py`.

Only while the format has not been released. From then on the kept files must never change: a new format gets
a fixture of its own beside them.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import engine_content  # noqa: E402
import kept_stores  # noqa: E402

import ckpt  # noqa: E402
from ckpt.storage.sqlite_file import FORMAT  # noqa: E402

FIXTURES = HERE / "fixtures"


def main() -> None:
    """Write the store and the JSON beside it."""
    FIXTURES.mkdir(exist_ok=True)
    kept = FIXTURES / f"format-{FORMAT}.db"
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / kept.name
        kept_stores.fill(made)
        with closing(sqlite3.connect(made)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        kept.write_bytes(made.read_bytes())
        with ckpt.open(made, readonly=True) as repository:
            content = engine_content.shortened(engine_content.content(repository))
    text = json.dumps(content, indent=1)
    kept.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
