"""Secrets in the environment, flags and addresses of programs, and a process that runs these in all their failures.

`python tests/planted.py FOLDER URL`, with the environment of `environment`: every program ends as it would by itself.
"""

import base64
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, unquote

ROOT = Path(__file__).parent.parent
REVISION = "0123456789abcdef0123456789abcdef01234567"
USER, SIGNATURE, FLAG = "mirror-user:Endpoint%40word-1", "Signed%2Bword-2", "https://flag-user:Flag-word-3@h.example/"
LOGIN = unquote(USER)  # as a request has it
SECRETS = {
    "HF_TOKEN": "hf_EnvironmentTokenWord",
    "HUGGING_FACE_HUB_TOKEN": "hf_OlderTokenWordOfTheHub",
    "WANDB_API_KEY": "4wandb4word4wandb4word",
    "HTTP_PROXY": "http://proxy-user:Proxy%40word-5@127.0.0.1:9",
    "https_proxy": "proxy-user2:Proxy-word-6@127.0.0.1:9",
    "PIP_INDEX_URL": "http://index-user:Index%40word-7@127.0.0.1:9/simple/?token=Index-word-8",
    "PIP_EXTRA_INDEX_URL": "http://Index-token-9@127.0.0.1:9/simple",
}


def environment(url: str, home: Path) -> dict[str, str]:
    """Variables with secrets, for a mirror at a loopback address; the hub's library keeps a token in `home`."""
    home.mkdir()
    (home / "token").write_text("hf_FileTokenWordOfTheHub")
    access = {"HF_ENDPOINT": url.replace("://", f"://{USER}@"), "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}
    pip = {"PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    return {**SECRETS, **access, **pip, "HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug", "HF_HUB_DISABLE_XET": "1"}


def spellings() -> set[bytes]:
    """Every secret as it is, percent-decoded and encoded, and as the header of a request has it."""
    pairs = {*re.findall(r"[\w-]+:[\w%-]+(?=@)", " ".join(SECRETS.values())), USER, "flag-user:Flag-word-3"}
    plain = {secret for secret in SECRETS.values() if "@" not in secret}
    plain |= {part for pair in pairs for part in pair.split(":")} | {"hf_FileTokenWordOfTheHub", SIGNATURE}
    plain |= {"Index-word-8", "Index-token-9"}
    decoded = plain | set(map(unquote, plain))
    headers = {base64.b64encode(unquote(pair).encode()).decode().rstrip("=") for pair in pairs}
    return {text.encode() for text in decoded | {quote(text, "") for text in decoded} | headers}


def leaks(text: bytes) -> list[str]:
    return sorted(secret.decode() for secret in spellings() if secret in text)


def programs(folder: Path, url: str) -> Iterator[tuple[str, str, Callable[[], None], list[str]]]:
    """(what is wrong, program, its main function, flags)."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    import fetch
    import manage
    from wspin.config.load import read_study
    from wspin.preflight.complaints import check_access

    study = read_study(["config/config.yaml"])

    def model(name: str, *flags: str, revision: str = REVISION) -> list[str]:
        output = ["--output", f"out/{name}", "--output-manifest", f"out/{name}.json", "--state", "state"]
        return ["model", "--hub", name, "--revision", revision, *output, *flags]

    yield "nothing", "fetch", fetch.main, model("lab/tiny", "--text", FLAG)
    for name in ("private", "gated", "missing", "broken", "loop", "signed", "tls", "unexpected"):
        yield name, "fetch", fetch.main, model(f"lab/{name}")
    yield "revision", "fetch", fetch.main, model("lab/tiny", revision="f" * 40)
    package = {"name": "texts", "version": "1.0", "sha256": "0" * 64, "file": "rows.json"}
    yield "index", "fetch", fetch.main, ["model", *model("x")[5:9], "--package", json.dumps(package)]
    yield "revisions", "manage", manage.main, ["revisions", "--configfile", "overlay.yaml"]
    yield "access", "preflight", lambda: print(*check_access(study)), []
    yield "push", "manage", manage.main, ["push", "--results", "results"]
    os.environ.pop("HF_TOKEN")
    os.environ.pop("HUGGING_FACE_HUB_TOKEN")
    constants.ENDPOINT = url
    yield "token file", "fetch", fetch.main, model("lab/private", "--output", "out/x")
    addresses = {
        "no server": f"http://{USER}@127.0.0.1:9",
        "TLS": url.replace("http://", f"https://{USER}@"),
        "no scheme": f"{USER}@127.0.0.1:9",
        "another scheme": f"ftp://{USER}@127.0.0.1:9",
        "a slash in the password": f"http://{USER}/word@127.0.0.1:9",
        "no host": f"http://{USER}@",
        "a query": f"{url}?token={SIGNATURE}",
        "a space": f"http://{USER} @127.0.0.1:9",
    }
    for name, address in addresses.items():
        constants.ENDPOINT = os.environ["HF_ENDPOINT"] = address
        constants.HUGGINGFACE_CO_URL_TEMPLATE = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        yield f"endpoint: {name}", "fetch", fetch.main, model("lab/tiny", "--output", "out/x")
    constants.ENDPOINT = "http://hub.example"
    del os.environ["NO_PROXY"]
    for address in ("http://{}@127.0.0.1:9", "ftp://{}@127.0.0.1:9", "http://{}@127.0.0.1:port", "http://{}/@[::1"):
        close_session()
        os.environ["HTTP_PROXY"] = address.format("proxy-user:Proxy%40word-5")
        yield f"proxy: {address}", "fetch", fetch.main, model("lab/tiny", "--output", "out/x")


def run(folder: Path, url: str) -> None:
    sys.path.insert(0, str(ROOT / "workflow" / "scripts"))
    import time

    from wspin import cli
    from wspin.fetch import models

    def check(folder: Path, template: str, eos: str, place: str) -> None:
        if "unexpected" in place:
            raise RuntimeError(f"{os.environ['HF_ENDPOINT']}: {os.environ['HF_TOKEN']}")

    models.check = check  # imports transformers
    time.sleep = lambda seconds: None  # between the hub's retries
    sys.addaudithook(lambda event, values: event == "subprocess.Popen" and print("starts", values[1], flush=True))
    os.chdir(folder)
    for wrong, program, main, flags in programs(folder, url):
        print(f"== {wrong}", flush=True)
        sys.argv = [f"{program}.py", *flags]
        try:
            cli.run(main, online=True)
        except SystemExit as end:
            print(end.code, flush=True)


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2])
