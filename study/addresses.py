"""Addresses as they may be shown: nothing that lets a reader in."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from trainables.errors import ConfigError

TRACKING = "MTL_STUDY_TRACKING"
"""Names the records where ``--tracking`` does not; the place for a URL with a password in it."""
ARTIFACTS = "MTL_STUDY_ARTIFACTS"
"""Names the root of the records' artifacts where ``--artifacts`` does not."""
CHECKPOINTS = "MTL_STUDY_CHECKPOINTS"
"""Names the root of the checkpoints where ``--checkpoints`` does not."""
NODE_DATA = "MTL_STUDY_NODE_DATA"
"""Names the nodes' own folder of built data where ``--node-data`` does not."""
_HIDDEN = "***"
_USER = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^\s/@:'\"]*):(?P<password>[^\s'\"]*)@(?=[^\s/@])", re.I)
_QUERY = re.compile(
    r"(?P<name>[?&;](?:password|passwd|pwd|token|secret|api_?key|access_?key|sig|signature)=)[^&;\s'\"]+", re.I
)


def mask(text: str) -> str:
    """``text`` with the passwords of all URLs in it, and the secrets in their queries, replaced by ``***``.

    A password may itself hold ``@``, ``:`` or ``/``: all up to the last ``@`` before a space or quote is hidden, at
    the price of hiding too much of some text that only looks like a URL.
    """
    return _QUERY.sub(rf"\g<name>{_HIDDEN}", _USER.sub(rf"\g<scheme>\g<user>:{_HIDDEN}@", text))


def sql_url(url: str) -> str:
    """``url`` with the one PostgreSQL driver that is asked for here: which one SQLAlchemy takes for a bare
    ``postgresql://`` depends on its version."""
    scheme, colon, rest = url.partition("://")
    return f"postgresql+psycopg{colon}{rest}" if scheme in ("postgres", "postgresql") else url


def records_url(given: str, source: str = TRACKING) -> str:
    """The URL of records elsewhere, as MLflow takes it.

    Args:
        given: ``postgresql://...``, or ``http(s)://...`` of an MLflow server.
        source: option or variable it comes from, for messages.

    Raises:
        ConfigError: it is neither.
    """
    url = sql_url(given.strip())
    try:
        parts = urlsplit(url)
        server = parts.scheme in ("http", "https") and parts.hostname
    except ValueError:
        server = None
    if server or url.startswith("postgresql+psycopg://"):
        return url
    hint = "; for SQLite name its folder with --home" if url.startswith("sqlite") else ""
    raise ConfigError(
        f"{source}={mask(given)}: postgresql://USER@HOST/DATABASE or http(s)://HOST:PORT of an MLflow server is "
        f"wanted{hint}"
    )


def without_password(given: str, option: str, variable: str) -> str:
    """``given``, an option's value; raises :class:`ConfigError` where it holds a secret, since all users of a machine
    see the command lines on it."""
    if mask(given) != given:
        raise ConfigError(f"{option} {mask(given)}: a URL with a password in it belongs into ${variable}")
    return given


def from_environment(variable: str) -> str | None:
    """The variable's value; ``None`` where it is not set or empty."""
    return os.environ.get(variable, "").strip() or None
