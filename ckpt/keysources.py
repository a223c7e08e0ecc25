"""The user's key as it is handed to programs: in a variable of the environment, or in a file that one names.

Whoever sets one of them asks for encryption, so what holds no key is an error and never means to do without.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ckpt.errors import InvalidInputError

KEY_VARIABLE: Final = "CKPT_ENCRYPTION_KEY"
KEY_FILE_VARIABLE: Final = "CKPT_ENCRYPTION_KEY_FILE"


def key_from(environment: Mapping[str, str]) -> str | None:
    """Return the key in `CKPT_ENCRYPTION_KEY`, or in the file that `CKPT_ENCRYPTION_KEY_FILE` names; None without both.

    Raises InvalidInputError for one that is set but blank, when both are set, and as `key_in` does.
    """
    found = {name: environment[name] for name in (KEY_VARIABLE, KEY_FILE_VARIABLE) if name in environment}
    for name, value in found.items():
        if not value.strip():
            raise InvalidInputError(f"{name} is set but empty", hints=["give it a value, or unset it to use no key"])
    if len(found) == 2:
        raise InvalidInputError(f"{KEY_VARIABLE} and {KEY_FILE_VARIABLE} are both set", hints=["unset one of them"])
    if KEY_FILE_VARIABLE in found:
        return key_in(found[KEY_FILE_VARIABLE])
    return _as_utf8(found[KEY_VARIABLE]) if KEY_VARIABLE in found else None


def key_in(file: str) -> str:
    """Return the key that a file holds as UTF-8 text, without line ends around it and a byte order mark before it.

    Spaces belong to a passphrase. Raises InvalidInputError for a file that cannot be read or holds nothing else.
    """
    try:
        text = Path(file).read_text(encoding="utf-8-sig").strip("\r\n")
    except (OSError, ValueError) as error:
        # An error of decoding would show what it could not decode.
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise _unusable(file, f"cannot be read: {reason}") from None
    if not text.strip():
        raise _unusable(file, "is empty")
    return text


def _as_utf8(value: str) -> str:
    """Return a variable's text as its bytes mean it in UTF-8: what Python made of them depends on the locale."""
    try:
        return os.fsencode(value).decode()
    except UnicodeError:
        return value


def _unusable(file: str, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"the key file {file} {why}", hints=["it holds a passphrase, or hex: and 64 hex digits, on one line"]
    )
