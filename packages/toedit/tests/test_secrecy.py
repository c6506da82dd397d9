"""Keys and tokens stay with the user: in no file and in no message."""

from __future__ import annotations

import pytest

from toedit.secrecy import is_secret, without_secrets

SECRET = ("api_key", "apikey", "OPENAI_API_KEY", "token", "hf_token", "password", "aws_secret_access_key")
SECRET += ("Authorization", "Proxy-Authorization", "X-Api-Key", "client_secret", "access_token", "Cookie")
OPEN = ("tokenizer", "tokens", "max_tokens", "pad_token", "bos_token", "tokenizer_mode", "url", "monkey")


@pytest.mark.parametrize("name", SECRET)
def test_secrets_are_known_by_their_names(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", OPEN)
def test_other_settings_are_none(name: str) -> None:
    assert not is_secret(name)


def test_what_is_left_is_the_same_value() -> None:
    given = {
        "options": {"dtype": "auto", "token": "hf_x", "default_headers": {"Authorization": "x", "A": "b"}},
        "stops": ["a", {"key": 1, "n": 2}],
        "url": "https://me:word@host:8000/v1",
        "at": "s3://me:w@rd@host/a?mail=me@host",
        "mail": "me@host",
        "n": 3,
    }
    assert without_secrets(given) == {
        "options": {"dtype": "auto", "default_headers": {"A": "b"}},
        "stops": ["a", {"n": 2}],
        "url": "https://host:8000/v1",
        "at": "s3://host/a?mail=me@host",
        "mail": "me@host",
        "n": 3,
    }
