"""Credentials: out of every text that is shown or written, and out of the environment of programs that need none."""

import base64
import os
import re
from pathlib import Path
from urllib.parse import quote, unquote

HIDDEN = "***"
SHORTEST = 6  # characters; a shorter secret would hide ordinary words, and is looked for in addresses alone
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{12,}")  # of the hub, wherever it comes from
USER = re.compile(r"(?<=://)[^\s/?#\"<>]*@")
# Addresses of downloads are signed in their query, or in a fragment that holds a value. Punctuation behind it stays.
VALUE = r"[^\s\"<>]*[^\s\"<>).,:;'\]]"
QUERY = re.compile(rf"(?<=[\w/])([?#])[\w.~%+-]+={VALUE}")
ADDRESS = re.compile(rf"(://[^\s?\"<>]*)(\?{VALUE})?")  # whole, so that a long line of them is read once
# But no partition key of InfiniBand (`NCCL_IB_PKEY`), without which processes may not reach each other
SECRET_NAME = re.compile(r"(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|JWT|(?<!IB_P)KEY)S?$", re.IGNORECASE)
# In variables, whose addresses may be careless: with blanks or raw slashes in a password, or a proxy without a scheme
USERS = re.compile(r"(?<=://)(?:[^\s/]*|[^\s/:]+:(?!\d+/)(?:(?!://).)*)(?=@)")
PROXY_NAME, PROXY_USERS = re.compile("PROXY|ENDPOINT", re.IGNORECASE), re.compile(r"^(?!\w+://)[^\s/:@]+:\S+(?=@)")


def without_credentials(text: str) -> str:
    """The text without users, passwords, queries and signatures of addresses, the hub's tokens, and secrets of the
    environment: variables that are named as such, and users and passwords in the addresses of mirrors, proxies and
    indexes, also percent-encoded or as the header of a request has them.

    For every text that may hold an address or another library's words, before it is shown or written.
    """
    secrets = {form for values in secret_variables().values() for value in values for form in _forms(value)}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST:
            text = text.replace(secret, HIDDEN)
    text = ADDRESS.sub(lambda match: match[1] + (f"?{HIDDEN}" if match[2] else ""), USER.sub("", text))
    return TOKEN.sub(HIDDEN, QUERY.sub(rf"\1{HIDDEN}", text))


def secret_variables() -> dict[str, set[str]]:
    """{variable of the environment: the secrets in its value}; the name of this account, which paths hold, is none."""
    variables = {}
    account = {os.environ.get("USER"), os.environ.get("LOGNAME"), Path(os.environ.get("HOME", "")).name}
    for name, value in os.environ.items():
        users = USERS.findall(value) + (PROXY_USERS.findall(value) if PROXY_NAME.search(name) else [])
        secrets = {*users, *(part for user in users for part in (user.partition(":")[2], *re.split(r"[:/?#@ ]", user)))}
        secrets |= {value} if SECRET_NAME.search(name) else set()
        if secrets := secrets - {"", *account}:
            variables[name] = secrets
    return variables


def drop_credentials() -> None:
    """Remove the variables with secrets from the environment of this process and of those that it starts."""
    for name in secret_variables():
        del os.environ[name]


def _forms(secret: str) -> set[str]:
    """The spellings of a secret: raw, percent-encoded or decoded, and in base64."""
    raw = {secret, unquote(secret)}
    quoted = {quote(form, safe, errors="surrogateescape") for form in raw for safe in ("", "/")}
    return raw | quoted | {_base64(form) for form in raw}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode(errors="surrogateescape")).decode().rstrip("=")
