"""Addresses as they may be shown: nothing that lets a reader in."""

from __future__ import annotations

import re

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
