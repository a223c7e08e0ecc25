"""Savers from a configuration: for code that has one at hand, and for LangGraph's server, which has none.

What a configuration may say is the matter of `ckpt.config`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from os import PathLike
from pathlib import Path

from ckpt.config import Config, from_environment, load
from ckpt.config.documents import FORMATS, sections
from ckpt.langgraph.saver import CkptSaver


def get_checkpointer(
    config: Config | Mapping[str, object] | str | PathLike[str] | None, async_mode: bool = False
) -> CkptSaver | None:
    """Return a saver as a configuration says, or None for None and for an empty mapping or text.

    `config` is what `ckpt.config.load` takes or returns, or what stands under `checkpointer:` in a yamlgraph file:
    a mapping, in which a bare number as `ttl` means minutes, or a plain text: `memory`, or a URL. A text that ends in
    `.toml`, `.yaml` or `.yml` is the path of a file. The saver is both sync and async, so `async_mode` makes no
    difference. Each call opens a saver of its own, to be closed by the caller. Raises as `load` and `CkptSaver`
    do; there is no other store to fall back to.
    """
    if not config:
        return None
    inner = Path(config).suffix.lower() not in FORMATS if isinstance(config, str) else isinstance(config, Mapping)
    if inner and not (isinstance(config, Mapping) and sections(config)):
        config = {"checkpointer": config}
    return _saver(config if isinstance(config, Config) else load(config))


@asynccontextmanager
async def checkpointer() -> AsyncIterator[CkptSaver]:
    """Open the saver that `CKPT_STORE` or `CKPT_CONFIG` name, for the `checkpointer` of a `langgraph.json`.

    Raises as `ckpt.config.from_environment` and `CkptSaver` do. Reading and opening do not block the event loop;
    the saver is closed on leaving. Entered again, it opens the store once more: `memory://` is a new store then.
    """
    async with await asyncio.to_thread(lambda: _saver(from_environment())) as saver:
        yield saver


def _saver(config: Config) -> CkptSaver:
    url, keywords = config.open_options()
    return CkptSaver(url, **keywords)
