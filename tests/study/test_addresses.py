from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.addresses import mask


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pw@db:5432/mlflow", "postgresql://me:***@db:5432/mlflow"),
        ("cannot open postgresql+psycopg2://me:p@s:s/w@db/x now", "cannot open postgresql+psycopg2://me:***@db/x now"),
        ("http://:pw@host", "http://:***@host"),
        ("https://host/x?token=abc&a=1", "https://host/x?token=***&a=1"),
        ("s3://bucket/key?a=1&X_api_key=2", "s3://bucket/key?a=1&X_api_key=2"),
        ("sqlite:////home/a/mlflow.db", "sqlite:////home/a/mlflow.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("ValueError: expected a:b@c", "ValueError: expected a:b@c"),
    ],
)
def test_passwords_are_hidden_and_the_rest_is_left(text: str, shown: str) -> None:
    assert mask(text) == shown
    assert mask(shown) == shown


@given(password=st.text("abcXYZ019@:/%!$-_.", min_size=1), before=st.text(" abc", max_size=5))
def test_no_password_is_shown(password: str, before: str) -> None:
    shown = mask(f"{before} postgresql://user:#{password}#@host/db")
    assert f"#{password}#" not in shown
    assert "user:***@host/db" in shown
