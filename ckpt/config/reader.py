"""Reading the keys of one configuration: expanding variables, checking each value, refusing what makes no sense.

Expansion comes after parsing, so that what a variable holds can never add a key. Errors name the key, what it
should be and, at most, which kind of value it is: never the value, which may be or hold a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, Final

from ckpt.addresses import PATH_HINT, is_mistyped
from ckpt.config.documents import FORMATS, SECTIONS, kind_of
from ckpt.config.settings import IN_QUERY, Config
from ckpt.durations import DURATION_FORMS, DURATION_MAX, parse_duration
from ckpt.errors import InvalidInputError

_SCHEMES: Final = {
    "memory": "memory",
    "sqlite": "sqlite",
    "postgresql": "postgres",
    "postgres": "postgres",
    "redis": "redis",
    "rediss": "redis",
    "unix": "redis",
}
_TYPES: Final = {
    "memory": "memory",
    "sqlite": "sqlite",
    "postgres": "postgres",
    "postgresql": "postgres",
    "redis": "redis",
}
_ONLY_FOR: Final = {
    "path": "sqlite",
    "synchronous": "sqlite",
    "cache_kb": "sqlite",
    "busy_timeout": "sqlite",
    "schema": "postgres",
    "pool_size": "postgres",
    "key_prefix": "redis",
}
_SYNCHRONOUS: Final = ("full", "normal", "extra", "off")
_OTHER_WORDS: Final = {"max_connections": "pool_size", "conn_string": "url", "dsn": "url", "default_ttl": "ttl"}
"""What other savers call a key of ours, where no likeness of the names would lead there."""

_VARIABLE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_]\w*)(?::-((?:[^}$]|\$(?!\{))*))?\})?", re.ASCII)
_SHOWABLE = re.compile(r"[\w. -]{1,60}")
_DIGITS = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})?")
_COUNT_MAX = 10**18 - 1
"""The largest whole number: what has more digits is a slip, and thousands of them cannot even be shown."""
_DURATION_MIN = timedelta(milliseconds=1)

_URL_FORMS = "write sqlite:///…, postgresql://…, redis://…, rediss://…, unix://… or memory://"


class _Expanded(str):
    """Text with the values of variables in it; `written` is what stands in the document."""

    __slots__ = ("written",)
    written: str


class Reader:
    """Reads the keys of one configuration; `where` names it in errors. Without an environment nothing expands."""

    def __init__(self, where: str, environment: Mapping[str, str] | None, *, bare_minutes: bool = False) -> None:
        self.where = where
        self._environment = environment
        self._bare_minutes = bare_minutes

    def config(self, section: Mapping[str, object]) -> Config:
        readers: dict[str, Callable[[str, Any], object]] = {
            "type": self._type,
            "path": self._path,
            "url": self._url,
            "synchronous": self._synchronous,
            "cache_kb": self._count,
            "busy_timeout": self._duration,
            "schema": self._text,
            "pool_size": self._count,
            "key_prefix": self._text,
            "graph": self._text,
            "encryption_key": self._encryption_key,
            "ttl": self._ttl,
            "retention": self._retention,
            "max_checkpoint_size": self._count,
        }
        values = self._table("", section, readers)
        ttl = values.pop("ttl", {})
        return Config(type=self._agree(values), **ttl, **values)

    def plain(self, text: str) -> Config:
        """Read a text in place of the table: a type, or a URL."""
        said = self._text("text", self._expand("text", text))
        if "://" in said:
            return self.config({"url": text})
        if said.lower() in _TYPES:
            return self.config({"type": text})
        near = get_close_matches(said.lower(), _TYPES, 1)
        hints = [f"did you mean {near[0]}?"] if near else [f"types are {', '.join(_TYPES)}"]
        hints += [_URL_FORMS, f"the name of a configuration file ends in {', '.join(FORMATS)}"]
        raise InvalidInputError(f"{self.where} is a text that is neither a type of store nor a URL", hints=hints)

    def _agree(self, values: dict[str, Any]) -> str:
        """Take `type` out of the values, or infer it, and return it; raise if another key contradicts it."""
        url, said = values.get("url"), values.pop("type", None)
        kind: str | None = said or ("sqlite" if "path" in values else _SCHEMES[url.partition(":")[0]] if url else None)
        if kind is None:
            raise self._error("type", "is missing, and neither path nor url says which store to open")
        for name in values:
            if _ONLY_FOR.get(name, kind) != kind:
                raise self._error(name, f"means nothing for a store of type {kind}", f"it is for {_ONLY_FOR[name]}")
        if url is not None and "path" in values:
            raise self._error("path", "and url name a store each", "keep one of them")
        if url is not None and _SCHEMES[url.partition(":")[0]] != kind:
            raise self._error("url", f"is not of type {kind}", "correct type, or leave it out: the URL says it")
        if kind == "sqlite" and url is None and "path" not in values:
            raise self._error("path", "is missing for a store of type sqlite", "name its file")
        if kind in ("postgres", "redis") and url is None:
            raise self._error("url", f"is missing for a store of type {kind}", _URL_FORMS)
        if url is not None:
            there = {each.partition("=")[0] for each in url.partition("?")[2].split("&")}
            for name in IN_QUERY:
                if name in there and name in values:
                    raise self._error(name, "is also set in the URL", "keep one of them")
        return kind

    def _table(
        self, prefix: str, table: Mapping[Any, object], readers: Mapping[str, Callable[[str, Any], object]]
    ) -> dict[str, Any]:
        for name in table:
            if not isinstance(name, str) or name not in readers:
                raise self._unknown(prefix, name, [*readers])
        return {name: readers[name](prefix + name, self._expand(prefix + name, value)) for name, value in table.items()}

    def _unknown(self, prefix: str, name: object, known: list[str]) -> InvalidInputError:
        if not isinstance(name, str):
            return self._error(prefix or "a key", f"is {kind_of(name)}, and keys are text")
        other = _OTHER_WORDS.get(name)
        near = [other] if other in known else get_close_matches(name.lower(), known, 1)
        hints = [f"did you mean {prefix}{near[0]}?"] if near else [f"known are {', '.join(known)}"]
        if not prefix and not near:
            hints.append(f"in a larger file the configuration stands under {', '.join(SECTIONS)}")
        return self._error(f"{prefix}{name}" if _SHOWABLE.fullmatch(name) else "a key", "is not known", *hints)

    def _error(self, key: str, what: str, *hints: str) -> InvalidInputError:
        return InvalidInputError(f"{self.where}: {key} {what}", hints=hints)

    def _wrong(self, key: str, value: object, wanted: str, *hints: str) -> InvalidInputError:
        return self._error(key, f"is {kind_of(value)}, not {wanted}", *hints)

    def _expand(self, key: str, value: object) -> object:
        environment = self._environment
        if environment is None or not isinstance(value, str) or "${" not in value:
            return value

        def replaced(match: re.Match[str]) -> str:
            name, default = match[1], match[2]
            if match[0] == "$${":
                return "${"
            if name is None:
                raise self._error(
                    key,
                    "has a ${ that is not the beginning of a variable",
                    "write ${VAR} or ${VAR:-default}, without one in another; a plain ${ is written $${",
                )
            if default is not None:
                return environment.get(name) or default
            if name not in environment:
                raise self._error(
                    key, f"needs the variable {name}, which is not set", f"set it, or write ${{{name}:-default}}"
                )
            return environment[name]

        expanded = _Expanded(_VARIABLE.sub(replaced, value))
        expanded.written = value
        return expanded

    def _text(self, key: str, value: object) -> str:
        if not isinstance(value, str):
            raise self._wrong(key, value, "text", "put it into quotes")
        if not value:
            raise self._error(key, "is empty", "give it a value, or leave it out")
        if "\x00" in value or not _is_unicode(value):
            raise self._error(key, "holds a character that no name can have")
        return str(value)

    def _choice(self, key: str, value: object, choices: tuple[str, ...]) -> str:
        text = self._text(key, value).lower()
        if text not in choices:
            near = get_close_matches(text, choices, 1)
            hints = [f"did you mean {near[0]}?"] if near else []
            raise self._error(key, f"is none of {', '.join(choices)}", *hints)
        return text

    def _type(self, key: str, value: object) -> str:
        return _TYPES[self._choice(key, value, tuple(_TYPES))]

    def _synchronous(self, key: str, value: object) -> str:
        if value is False:  # YAML 1.1 reads a bare off as false
            return "off"
        return self._choice(key, value, _SYNCHRONOUS)

    def _path(self, key: str, value: object) -> str:
        text = self._text(key, value)
        if "://" in text:
            raise self._error(key, "is a URL", "write url instead of path")
        if is_mistyped(text):
            raise self._error(key, "begins as a URL or a connection string does", "write url", PATH_HINT)
        if text == ":memory:":
            raise self._error(key, "names no file", "write type: memory for a store that ends with the process")
        return text

    def _url(self, key: str, value: object) -> str:
        text = self._text(key, value)
        scheme, mark, _ = text.partition("://")
        if not mark:
            raise self._error(key, "is not a URL", _URL_FORMS, "a file is named by path")
        if scheme not in _SCHEMES:
            raise self._error(key, "is a URL of a kind that is not known", _URL_FORMS)
        if "#" in text:
            raise self._error(key, "holds a #, behind which nothing would be read", "write it as %23")
        return text

    def _encryption_key(self, key: str, value: object) -> str | bytes:
        if isinstance(value, bytes) and value:
            return value
        text = self._text(key, value)
        if not text.strip():
            raise self._error(key, "is blank", "give it a value, or leave it out to use no key")
        return text

    def _count(self, key: str, value: object) -> int:
        if isinstance(value, _Expanded) and _DIGITS.fullmatch(value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, value, "a whole number")
        if value < 1:
            raise self._error(key, "is less than 1")
        if value > _COUNT_MAX:
            raise self._error(key, "has more than 18 digits")
        return value

    def _truth(self, key: str, value: object) -> bool:
        if isinstance(value, _Expanded) and value in ("true", "false"):
            value = value == "true"
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def _duration(self, key: str, value: object) -> timedelta:
        return self._measured(key, value, minutes=False)

    def _minutes_or_duration(self, key: str, value: object) -> timedelta:
        return self._measured(key, value, minutes=True)

    def _measured(self, key: str, value: object, *, minutes: bool) -> timedelta:
        if isinstance(value, int) and abs(value) > _COUNT_MAX:
            raise self._error(key, "is not a duration", DURATION_FORMS)
        shown = value.written if isinstance(value, _Expanded) else value
        whole = isinstance(value, int) or (isinstance(value, str) and _DIGITS.fullmatch(value) is not None)
        if isinstance(value, _Expanded) and _NUMBER.fullmatch(value):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise self._wrong(key, value, "a duration", DURATION_FORMS)
        if _NUMBER.fullmatch(value) if isinstance(value, str) else not minutes:
            hint = f'write "{shown}s" for seconds, "{shown}m" for minutes' if whole else DURATION_FORMS
            raise self._error(key, "is a number without a unit", hint)
        try:
            duration = parse_duration(value) if isinstance(value, str) else timedelta(minutes=value)
        except (InvalidInputError, OverflowError, ValueError):
            duration = None
        # Outside the handler: the cause would show what a variable holds.
        if duration is None:
            raise self._error(key, "is not a duration", DURATION_FORMS)
        if duration <= timedelta():
            raise self._error(key, "is not longer than nothing", DURATION_FORMS)
        if duration < _DURATION_MIN:
            raise self._error(key, "is less than a millisecond", DURATION_FORMS)
        if duration > DURATION_MAX:
            raise self._error(key, "is more than a hundred years", "leave it out where nothing shall end")
        return duration

    def _ttl(self, key: str, value: object) -> dict[str, object]:
        if not isinstance(value, Mapping):
            return {"ttl": self._measured(key, value, minutes=self._bare_minutes)}
        names = {
            "default_ttl": ("ttl", self._minutes_or_duration),
            "refresh_on_read": ("ttl_refresh_on_read", self._truth),
            "sweep_interval_minutes": ("ttl_sweep_interval", self._minutes_or_duration),
        }
        shaped = self._table(f"{key}.", value, {name: read for name, (_, read) in names.items()})
        if "default_ttl" not in shaped:
            raise self._error(f"{key}.default_ttl", "is missing", "say how long a thread lives")
        return {names[name][0]: read for name, read in shaped.items()}

    def _retention(self, key: str, value: object) -> str | Mapping[str, object]:
        if not isinstance(value, Mapping):
            if not isinstance(value, str):
                raise self._wrong(key, value, "everything, keep_latest, or a table of keep_last and keep_within")
            return self._choice(key, value, ("everything", "keep_latest"))
        kept = self._table(f"{key}.", value, {"keep_last": self._count, "keep_within": self._duration})
        if not kept:
            raise self._error(key, "is empty", "say keep_last, keep_within or both")
        return kept


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
