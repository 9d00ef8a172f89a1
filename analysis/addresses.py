"""Where records are: the URL a user gives, as it is used and as it is shown; and what their reader says is wrong."""

from __future__ import annotations


def with_driver(url: str) -> str:
    """``url`` with the PostgreSQL driver that is asked for in ``pyproject.toml``."""
    scheme, colon, rest = url.partition("://")
    return f"postgresql+psycopg{colon}{rest}" if scheme in ("postgres", "postgresql") else url


def shown(url: str) -> str:
    """``url`` without what lets a reader in: user, password and query."""
    scheme, colon, rest = url.partition("://")
    return f"{scheme}{colon}{rest.rpartition('@')[2].partition('?')[0]}"


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def inner_line(error: BaseException) -> str:
    """What the cause of an error says, or the error itself where it has none, in one line."""
    return first_line(error.__cause__ or error)
