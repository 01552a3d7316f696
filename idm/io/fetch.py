"""Download weights files on request: interrupted downloads resume, and files are verified and written atomically."""

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from idm.io.atomic import sync
from idm.io.errors import UserError
from idm.io.known_weights import WeightsFile
from idm.io.weights import WeightsError, convert, flaw

ATTEMPTS = 5  # in a row that bring no new byte, until a download is given up
TIMEOUT = 30.0  # seconds for the server to say something

_CHUNK = 1 << 16
_PASSING = (408, 429)  # refusals that may be over a moment later

OnBytes = Callable[[int, int | None], None]


class FetchError(UserError, OSError):
    """A file could not be downloaded; the message begins with its URL."""


class _Broken(Exception):
    """The connection failed; another attempt may succeed."""


def fetch(
    name: str,
    known: WeightsFile,
    folder: Path,
    on_bytes: OnBytes = lambda so_far, total: None,
    timeout: float = TIMEOUT,
    pause: float = 1.0,
) -> Path:
    """Download a weights file, convert it where needed, verify it, and put it into ``folder``.

    Data is written to ``NAME.part``. If the connection breaks, the rest is requested (HTTP Range) until ``ATTEMPTS``
    attempts in a row receive nothing. A later call resumes too if a checksum is known, which verifies that the parts
    fit together. The file gets its name once it is complete and verified.

    Args:
        on_bytes: called with the number of received bytes and the total (None if the server does not state it).
        timeout: seconds to wait for the server.
        pause: seconds before the second attempt; each further pause is twice as long.

    Raises:
        FetchError: the server refuses, cannot be reached, or sends another file than the known one, which is removed.
        OSError: the file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{name}.part"
    if known.sha256 is None:
        part.unlink(missing_ok=True)
    resumed = part.exists()
    download = _Download(known, part, on_bytes, timeout)
    download.run(pause)
    wrong = _finish(part, folder / name, known)
    if wrong and resumed:  # what came earlier may have been part of another file
        download.run(pause)
        wrong = _finish(part, folder / name, known)
    if wrong:
        raise FetchError(f"{known.file_url}: what the server sent {wrong}")
    return folder / name


def _finish(part: Path, path: Path, known: WeightsFile) -> str | None:
    """Convert, verify and rename the downloaded file, or remove it and raise the reason."""
    draft = part
    try:
        if known.made_of is not None:
            draft = path.with_name(f"{path.name}.draft")
            convert(part, known.made_of, draft)
        wrong = flaw(draft, known)
        if wrong is None:
            sync(draft)
            draft.replace(path)
    except WeightsError as error:
        wrong = f"is not what it should be ({error})"
    draft.unlink(missing_ok=True)
    part.unlink(missing_ok=True)
    return wrong


@dataclass
class _Download:
    known: WeightsFile
    part: Path
    on_bytes: OnBytes
    timeout: float
    validator: str | None = None  # the server's name for this state of the file, by which it tells whether it changed

    def run(self, pause: float) -> None:
        """Download until all bytes are there."""
        failures = 0
        while True:
            before = self._size()
            try:
                return self._continue()
            except _Broken as error:
                failures = 1 if self._size() > before else failures + 1
                if failures == ATTEMPTS:
                    raise FetchError(f"{self.known.file_url}: {error} ({ATTEMPTS} attempts)") from None
                time.sleep(pause * 2 ** (failures - 1))

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _continue(self) -> None:
        start = self._size()
        try:
            response = self._request(start)
        except urllib.error.HTTPError as error:
            if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{start}":
                return  # all was there
            if error.code == 416:
                self.part.unlink()
                raise _Broken("the server has less than was already there") from None
            if error.code < 500 and error.code not in _PASSING:
                raise FetchError(f"{self.known.file_url}: {error.code} {error.reason}") from None
            raise _Broken(f"{error.code} {error.reason}") from None
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(str(getattr(error, "reason", None) or error or type(error).__name__)) from None
        with response:
            self._save(response, start)

    def _request(self, start: int) -> http.client.HTTPResponse:
        headers = {"User-Agent": "idm-face-restoration", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if self.validator:
                headers["If-Range"] = self.validator
        request = urllib.request.Request(self.known.file_url, headers=headers)
        return urllib.request.urlopen(request, timeout=self.timeout)

    def _save(self, response: http.client.HTTPResponse, start: int) -> None:
        if not (response.headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
            start = 0  # the server knows no ranges, or the file has changed: this is the whole of it
        etag = response.headers.get("ETag")
        self.validator = etag if etag and not etag.startswith("W/") else None
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else self._expected()
        if self._expected() not in (None, total):
            raise FetchError(f"{self.known.file_url}: the server offers {total} bytes, not {self._expected()}")
        with self.part.open("ab" if start else "wb") as file:
            for chunk in _chunks(response):
                file.write(chunk)
                start += len(chunk)
                self.on_bytes(start, total)
        if total is not None and start < total:
            raise _Broken(f"the connection ended after {start} of {total} bytes")

    def _expected(self) -> int | None:
        return None if self.known.made_of else self.known.size


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(str(error) or type(error).__name__) from None
        if not chunk:
            return
        yield chunk
