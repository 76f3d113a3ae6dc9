"""Credentials are in no text that is shown or written."""

import base64
import os

import pytest
from attacks import attack

from wspin import cli
from wspin.credentials import secret_variables, without_credentials
from wspin.errors import StudyError, first_line

PASSWORD = "pa/ss%40word"  # as a careless address has it: the slash is raw, the @ encoded
FREE = {
    "HF_TOKEN_PATH": "/data/me/token",
    "TOKENIZERS_PARALLELISM": "false",
    "NO_PROXY": "localhost",
    "EMAIL": "me@example.org",
    "NCCL_IB_PKEY": "0x8001",  # partitions of a network
    "UCX_IB_PKEY": "0x8001",
    "PYTHONPATH": "src:/opt/python@3.11/lib",
    "PIP_FIND_LINKS": "https://links.example:8443/page@1/index.html",
}


@pytest.fixture
def environment(monkeypatch):
    """Variables with secrets, and some that only look like them."""
    variables = {
        "HF_TOKEN": "plain-token-of-a-mirror",
        "WANDB_API_KEY": "0123abcd0123abcd",
        "HTTPS_PROXY": f"corp:{PASSWORD}@proxy.example:3128",
        "PIP_EXTRA_INDEX_URL": "https://one.example/simple https://__token__:pypi-secret@two.example/simple",
        **FREE,
    }
    monkeypatch.setattr(os, "environ", variables)
    return variables


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:word@mirror.example/lab", "https://mirror.example/lab"),
        ("at https://user:w@rd@mirror.example:8443/lab; see", "at https://mirror.example:8443/lab; see"),
        ("git+ssh://user@host.example/a, http://b.example", "git+ssh://host.example/a, http://b.example"),
        ("(https://s3.example/f?X-Amz-Signature=ab%2F&Expires=1)", "(https://s3.example/f?***)"),
        ("https://s3.example/f?opaque; https://a.example#sig=ab", "https://s3.example/f?***; https://a.example#***"),
        ("GET /simple/texts/?token=ab HTTP/1.1", "GET /simple/texts/?*** HTTP/1.1"),
        ("Bearer hf_abcDEFghiJKLmno was refused", "Bearer *** was refused"),
        ("What is x? a=b; see page.md#what; me@host a/b@0123", "What is x? a=b; see page.md#what; me@host a/b@0123"),
    ],
)
def test_addresses_are_shown_without_what_admits_their_user(text, shown):
    assert without_credentials(text) == shown


def test_long_lines_of_addresses_are_read_once():
    text = "://a" * 250_000
    assert without_credentials(text) == text


def test_secrets_of_the_environment_are_hidden_in_every_spelling(environment):
    spellings = [environment["HF_TOKEN"], environment["WANDB_API_KEY"], PASSWORD, "pa/ss@word", "pa%2Fss%40word"]
    spellings += ["pypi-secret", base64.b64encode(b"__token__:pypi-secret").decode().rstrip("=")]
    for spelling in spellings:
        assert without_credentials(f"found {spelling}, no") == "found ***, no"
    assert without_credentials("found false at /data/me/token") == "found false at /data/me/token"


@pytest.mark.parametrize("variable", [{"USER": "mfuchs42"}, {"LOGNAME": "mfuchs42"}, {"HOME": "/scratch/mfuchs42"}])
def test_who_works_here_is_no_secret(environment, variable):
    """A proxy that takes the names of a cluster's accounts: their folders have them too."""
    environment.update(variable, HTTPS_PROXY="http://mfuchs42:open-sesame@proxy.example:3128")
    text = "/scratch/mfuchs42/study: found open-sesame and mfuchs42:open-sesame"
    assert without_credentials(text) == "/scratch/mfuchs42/study: found *** and ***"
    assert "HTTPS_PROXY" in secret_variables()


def test_errors_hold_no_credentials(environment):
    text = f"https://u:p@mirror.example: {environment['HF_TOKEN']}"
    assert str(StudyError(text)) == first_line(ValueError(text)) == "https://mirror.example: ***"


@attack("secrets", "a task's code or a model's library that reads HF_TOKEN", "only fetch, manage and preflight have it")
def test_programs_that_need_no_network_run_without_credentials(environment, root):
    cli.run(secret_variables, online=True)
    assert secret_variables()
    during = []
    cli.run(lambda: during.append(secret_variables()))
    assert during == [{}]
    assert environment.keys() - {"PYTEST_CURRENT_TEST"} == FREE.keys()
    programs = (root / "workflow/scripts").glob("*.py")
    online = {file.stem for file in programs if "cli.run(main, online=True)" in file.read_text()}
    assert online == {"fetch", "manage", "preflight"}
