"""Shared by all requests: folders for results, a limit on their size, errors as messages, and cancelling."""

import html
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import gradio as gr

from idm.apps.web.session import CancelledError, PageService
from idm.apps.web.workers import OnProgress
from idm.io.errors import InvalidInput, UserError


@contextmanager
def errors_shown_on_page(path: Path | None = None) -> Iterator[None]:
    """Show a user's mistake as a message on the page. It names the file without its path on the server."""
    try:
        yield
    except (UserError, ValueError, TypeError, OverflowError) as error:  # the last two of values that no control has
        message = str(error) if path is None else str(error).replace(str(path), path.name)
        raise gr.Error(html.escape(message), duration=None, title="", print_exception=False) from None


@dataclass(frozen=True)
class Work:
    """The service, the folder for results and the restorations that are running, of all users."""

    page_service: PageService
    results: Path
    max_results_bytes: int = 2_000_000_000
    running: dict[str, set[threading.Event]] = field(default_factory=dict)

    @contextmanager
    def on(self, path: Path | None, session: str | None, progress: gr.Progress, what: str) -> Iterator[OnProgress]:
        """A context for work on a photograph: errors become messages; it yields a progress callback that stops when the
        user cancels."""
        with errors_shown_on_page(path), self._until_cancelled(session) as is_cancelled:
            self.check_space()
            progress(0.0, desc=what)

            def on_progress(count: int, total: int) -> None:
                if is_cancelled.is_set():
                    raise CancelledError("cancelled")
                progress((count, total), desc=what, unit="steps")

            yield on_progress

    def check_space(self) -> None:
        """Refuse to work when there is no space for more results.

        Raises:
            ValueError: the results take ``max_results_bytes``.
        """
        if sum(path.stat().st_size for path in self.results.glob("*/*")) > self.max_results_bytes:
            raise InvalidInput("there is no space for more results; old ones are removed within an hour")

    def new_folder(self) -> Path:
        """A folder for results, whose name cannot be guessed."""
        folder = self.results / secrets.token_urlsafe(16)
        folder.mkdir()
        return folder

    @contextmanager
    def _until_cancelled(self, session: str | None) -> Iterator[threading.Event]:
        """Register a restoration of a user, whose :meth:`cancel` sets the event."""
        key, event = session or "", threading.Event()
        self.running.setdefault(key, set()).add(event)
        try:
            yield event
        finally:
            self.running[key].discard(event)
            if not self.running[key]:
                del self.running[key]

    def cancel(self, request: gr.Request) -> None:
        """Stop the user's restorations after their next step; also called when the user leaves the page."""
        for event in tuple(self.running.get(request.session_hash or "", ())):
            event.set()
