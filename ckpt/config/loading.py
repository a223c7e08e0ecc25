"""`load` and `from_environment`: from a document or the environment to a checked `Config`.

The one place below the command line that reads the environment, since a configuration is made to name it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Final

from ckpt.addresses import PATH_HINT, is_mistyped
from ckpt.config.documents import find_section, kind_of, parsed
from ckpt.config.reader import Reader
from ckpt.config.settings import Config
from ckpt.errors import InvalidInputError
from ckpt.keysources import KEY_VARIABLE, key_from

STORE_VARIABLE: Final = "CKPT_STORE"
CONFIG_VARIABLE: Final = "CKPT_CONFIG"


def load(source: Mapping[str, object] | str | PathLike[str], *, environment: Mapping[str, str] | None = None) -> Config:
    """Read and check a configuration.

    `source` is a mapping, or the path of a file that ends in `.toml`, `.yaml` or `.yml`. If the document has one
    of the tables `tool.ckpt`, `ckpt` and `checkpointer`, that table is the configuration and the rest is left
    alone; without any, the document itself is. Under `checkpointer` a bare number as `ttl` means minutes, and a
    plain text in place of the table is its `type`, or its `url` if there is a `://` in it.

    In every text of the configuration `${VAR}` is what the variable holds in `environment` (by default that of
    the process), `${VAR:-default}` the default if it is unset or empty, and `$${` a plain `${`. Raises
    InvalidInputError that names the file and the key: for a file or a document that cannot be read, an unset
    variable, an unknown key, a wrong type, keys that exclude each other, and when it is not said which store to
    open. Opens nothing.
    """
    environment = os.environ if environment is None else environment
    if isinstance(source, Mapping):
        document, where = source, "the configuration"
    elif not isinstance(source, str | PathLike):
        raise InvalidInputError(
            f"the configuration is {kind_of(source)}, not a table of keys or the path of a file",
            hints=["give a mapping, or the path of a .toml, .yaml or .yml file"],
        )
    elif isinstance(source, str) and ("://" in source or is_mistyped(source)):
        # Not repeated: it may hold a password.
        raise InvalidInputError(
            "the configuration is named by a URL, not by the path of a file",
            hints=[f"give load a mapping with url in it, or set {STORE_VARIABLE} to the URL"],
        )
    else:
        document, where = parsed(Path(source)), str(source)
    name, section = find_section(document, where)
    reader = Reader(f"{where} [{name}]" if name else where, environment, bare_minutes=name == "checkpointer")
    if name == "checkpointer" and isinstance(section, str):
        return reader.plain(section)
    if not isinstance(section, Mapping):
        raise InvalidInputError(f"{reader.where} is {kind_of(section)}, not a table of keys")
    if not section:
        raise InvalidInputError(f"{reader.where} is empty", hints=["say which store to open: type, path or url"])
    return reader.config(section)


def from_environment(environment: Mapping[str, str] | None = None) -> Config:
    """Return what `CKPT_CONFIG` (a file) or `CKPT_STORE` (a path or a URL, taken as it is) say, and the key's two.

    As on the command line, the folder that `ckpt init` makes stands for the store in it, and the key is in
    `CKPT_ENCRYPTION_KEY` or in the file that `CKPT_ENCRYPTION_KEY_FILE` names. Raises InvalidInputError if neither
    or both of the first two are set (empty counts as unset), if the key is set but blank or is not the one that the
    file names, and as `load` does.
    """
    environment = os.environ if environment is None else environment
    config, key = _named(environment), key_from(environment)
    if key is not None and config.encryption_key not in (None, key):
        raise InvalidInputError(
            f"the configuration has an encryption_key, and {KEY_VARIABLE} or its file holds another",
            hints=["keep one of them, or write encryption_key: ${" + KEY_VARIABLE + "}"],
        )
    return replace(config, encryption_key=config.encryption_key or key)


def _named(environment: Mapping[str, str]) -> Config:
    store, file = environment.get(STORE_VARIABLE), environment.get(CONFIG_VARIABLE)
    if store and file:
        raise InvalidInputError(
            f"both {STORE_VARIABLE} and {CONFIG_VARIABLE} are set, and each names a store",
            hints=[f"unset {STORE_VARIABLE} to use the file, or {CONFIG_VARIABLE} to use the store without options"],
        )
    if file:
        return load(file, environment=environment)
    if store:
        if "://" not in store and is_mistyped(store):
            raise InvalidInputError(
                f"{STORE_VARIABLE} begins as a URL or a connection string does, but has no ://", hints=[PATH_HINT]
            )
        named = {"url": store} if "://" in store else {"path": store}
        return Reader(STORE_VARIABLE, None).config(named)
    raise InvalidInputError(
        "it is not said which store to open",
        hints=[f"set {STORE_VARIABLE} to a path or URL, or {CONFIG_VARIABLE} to a configuration file"],
    )
