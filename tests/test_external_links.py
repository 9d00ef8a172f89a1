"""Addresses outside of this project that its pages send readers to."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "CITATION.cff", ROOT / "mkdocs.yml"]
HOSTS = {"arxiv.org", "docs.ray.io", "mlflow.org", "optuna.org"}
"""Of projects and archives that outlive a page; another host is added here by whoever has looked at it."""
GONE = {404, 410}


def links() -> dict[str, str]:
    """Address to a page that has it; examples in code, and this machine's own, are none."""
    found: dict[str, str] = {}
    for page in PAGES:
        text = re.sub(r"^```.*?^```|`[^`\n]+`", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
        for address in re.findall(r"https?://[^\s)\"'>\]]+", text):
            if urlsplit(address).hostname != "127.0.0.1":
                found.setdefault(address.rstrip(".,;"), page.relative_to(ROOT).as_posix())
    return found


@pytest.mark.parametrize(("address", "page"), links().items())
def test_a_link_is_well_formed_and_of_a_known_host(address: str, page: str) -> None:
    parts = urlsplit(address)
    assert parts.scheme == "https", page
    assert parts.hostname in HOSTS, page
    assert parts.username is None, page


def test_there_are_links_to_check() -> None:
    assert {urlsplit(address).hostname for address in links()} == HOSTS


@pytest.mark.skipif("MTL_STUDY_LINKS" not in os.environ, reason="make links: needs a network")
@pytest.mark.parametrize("address", links())
def test_a_link_leads_somewhere(address: str) -> None:
    request = urllib.request.Request(address, headers={"User-Agent": "Mozilla/5.0 (link check)"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    except urllib.error.URLError as error:
        pytest.skip(f"no network: {error.reason}")
    # A host that is busy, or refuses programs, says nothing of the page.
    assert status not in GONE
