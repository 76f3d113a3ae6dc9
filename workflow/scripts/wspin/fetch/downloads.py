"""Responses of the hub: listings in memory and files on the disk, limited in size and in time without progress.

The hub, a mirror or a proxy may send anything. No more is kept than was asked for, no encoding is undone, and redirects
end. HF_TOKEN and HF_ENDPOINT are read by huggingface_hub. The token is sent to the hub alone, and addresses are never
quoted: that of a download may be signed.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wspin.errors import StudyError
from wspin.progress import progress_printer
from wspin.storage.files import writing
from wspin.storage.opening import regular

STALLED = 60.0  # seconds to wait for a connection, and for the next bytes
SLOWEST = 1000  # bytes a second; a body that comes slower for so long is stalled too
ATTEMPTS = 5  # to continue a body, without progress between them
PROGRESS = 2**20  # bytes
PAUSE = 1.0  # seconds before the next attempt
BUSY = (408, 429, 500, 502, 503, 504)  # HTTP statuses with which a server asks for another attempt
REDIRECTS = 10
LARGEST_LISTING = 64 * 2**20  # bytes; hundreds of thousands of files
REPORT = "run again, and report to the hub or mirror if it repeats"


def client() -> Any:
    """huggingface_hub without Xet, which keeps no partial files, so that a killed fetch would begin again.

    Its warnings are off too: they contain download addresses. Raises `StudyError` if HF_ENDPOINT or a proxy is none.
    """
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    import huggingface_hub

    huggingface_hub.logging.set_verbosity_error()
    _check_addresses(huggingface_hub)
    return huggingface_hub


def _check_addresses(library: Any) -> None:
    """Raises `StudyError` unless HF_ENDPOINT and the proxies are addresses; parts of them may be secrets."""
    import httpx2

    endpoint = library.constants.ENDPOINT
    try:
        parts = urlsplit(endpoint)
        wrong = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
        wrong |= bool(re.search(r"[\s?#]", endpoint)) or "@" in parts.path
    except ValueError:
        wrong = True
    login = (
        "with user:password@ before the host if need be, found another form; percent-encode other characters in these"
    )
    if wrong:
        raise StudyError(f"HF_ENDPOINT: expected an address such as https://mirror.example, {login}, and add no query")
    try:
        library.utils.get_session()
    except (ValueError, ImportError, httpx2.InvalidURL):
        message = f"expected addresses such as http://proxy.example:3128, {login}"
        raise StudyError(f"HTTP_PROXY, HTTPS_PROXY, ALL_PROXY: {message}") from None


def read(place: str, url: str) -> bytes:
    """The whole body of an address of the hub. Raises `StudyError` if it is too large, and the library's errors."""
    expected = f"{place}: expected at most {LARGEST_LISTING} bytes of metadata"
    with _response(place, url, 0) as response:
        return b"".join(limited(_chunks(response), LARGEST_LISTING, f"{expected}, found more; {REPORT}"))


def download(place: str, url: str, size: int, partial: Path) -> None:
    """Write a file of `size` bytes to `partial`, beginning where it ends, and again where a connection breaks.

    Raises `StudyError` if another body comes, or none; `partial` stays for the next attempt, unless it is wrong.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    print_progress = progress_printer(f"fetch: {place}", size // 1000, "kB")
    attempts, furthest, broken = 0, 0, ""
    with writing(partial), open(partial, "ab", opener=regular) as output:
        kept = output.tell() // 1000
        while (start := output.tell()) < size:
            if start >= furthest + PROGRESS:
                attempts, furthest = 0, start
            if attempts == ATTEMPTS:
                remedy = "these are kept: run again to continue, and check the network, HF_ENDPOINT and the proxy"
                raise StudyError(f"{place}: expected {size} bytes, found {start} and then {broken}; {remedy}")
            time.sleep(PAUSE * bool(attempts))
            attempts += 1
            try:
                with _response(place, url, start) as response:
                    _seek(output, place, response, start, size)
                    for chunk in _chunks(response):
                        if output.tell() + len(chunk) > size:
                            partial.unlink()
                            raise StudyError(f"{place}: expected {size} bytes, found more; it is deleted: {REPORT}")
                        output.write(chunk)
                        print_progress(output.tell() // 1000, kept) if output.tell() >= 1000 else None
                broken = "the end of the body"
            except HfHubHTTPError as error:
                if error.response.status_code not in BUSY:
                    raise
                broken = f"HTTP status {error.response.status_code}"
            except httpx2.TimeoutException:
                broken = f"nothing more for {STALLED:g} s"
            except (httpx2.NetworkError, httpx2.RemoteProtocolError) as error:
                broken = type(error).__name__


def _seek(output: Any, place: str, response: Any, start: int, size: int) -> None:
    """Go to where a response's body belongs. Raises `StudyError` if that is not `start` or the whole file's begin."""
    if response.status_code == 206:
        content_range = response.headers.get("Content-Range", "")
        if not re.fullmatch(rf"bytes {start}-\d+/({size}|\*)", content_range):
            found = f"Content-Range {content_range or 'missing'}"
            raise StudyError(f"{place}: expected bytes {start}-{size - 1}/{size}, found {found}; {REPORT}")
    else:  # the whole file, also where the rest was asked for
        length = response.headers.get("Content-Length", str(size))
        if length != str(size):
            raise StudyError(f"{place}: expected {size} bytes, found {length}; {REPORT}")
        output.truncate(0)
        output.seek(0)


@contextlib.contextmanager
def _response(place: str, url: str, start: int) -> Iterator[Any]:
    """The response to a request for a body from byte `start` on, after redirects; httpx takes the token off them.

    Raises `StudyError` for an encoded body and for too many redirects, and the errors of httpx and huggingface_hub.
    """
    utils = client().utils
    import httpx2

    headers = {**utils.build_hf_headers(), "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={start}-"} if start else {}
    session = utils.get_session()
    request = session.build_request("GET", url, headers=headers, timeout=STALLED)
    for _ in range(REDIRECTS + 1):
        with contextlib.closing(session.send(request, stream=True, follow_redirects=False)) as response:
            if response.next_request:
                request = response.next_request
                continue
            # Without its body, which may be endless too, and which huggingface_hub would read
            kept = {name: value for name, value in response.headers.items() if name.startswith("x-error-")}
            utils.hf_raise_for_status(httpx2.Response(response.status_code, headers=kept, request=request))
            encoding = response.headers.get("Content-Encoding", "identity")
            if response.status_code not in ((200, 206) if start else (200,)):
                raise StudyError(f"{place}: expected a body, found HTTP status {response.status_code}; {REPORT}")
            if encoding.lower() != "identity":
                found = f"found Content-Encoding {encoding}; check HF_ENDPOINT and the proxy"
                raise StudyError(f"{place}: expected the bytes as they are, {found}")
            yield response
            return
    raise StudyError(f"{place}: expected at most {REDIRECTS} redirects, found more; check HF_ENDPOINT and the proxy")


def _chunks(response: Any) -> Iterator[bytes]:
    """The body as it arrives. Raises httpx's timeout if it comes too slowly to be waited for."""
    import httpx2

    return steady(response.iter_raw(), httpx2.ReadTimeout("too slow", request=response.request))


def steady(chunks: Iterable[bytes], timeout: Exception) -> Iterator[bytes]:
    """The pieces of a body as they arrive. Raises `timeout` if they come too slowly to be waited for."""
    since, received = time.monotonic(), 0
    for chunk in chunks:
        yield chunk
        received += len(chunk)
        if (seconds := time.monotonic() - since) > STALLED:
            if received < SLOWEST * seconds:
                raise timeout
            since, received = time.monotonic(), 0


def limited(chunks: Iterable[bytes], limit: int, message: str) -> Iterator[bytes]:
    """The pieces of a body. Raises `StudyError` with the message if they have more than `limit` bytes."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise StudyError(message)
        yield chunk
