"""Asks a helper process, which has torch and a few models, what the dashboard's pages cannot find out themselves.

The helper (`pgb_core.trial_worker`) is started with the first question, stays while there are more, and ends when it is
idle or when this process does. One that has died is started again. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pgb_core import demo_mode
from pgb_core.commands import child_environment
from pgb_core.errors import RunError

COMMAND = (sys.executable, "-m", "pgb_core.trial_worker")
MAX_CHARACTERS = 2000
"""Of a text that is tried."""
_PATIENCE_SECONDS = 300.0
"""Without a word from the helper; on a very busy machine its libraries alone took two minutes to load."""


class Trial:
    """A helper process that answers one question at a time, from any thread.

    >>> Trial().ask({"op": "classify", "models": [{"run": "...", "model": "dense"}], "text": "Hi"})  # doctest: +SKIP
    """

    def __init__(self, command: Sequence[str] = COMMAND, patience: float = _PATIENCE_SECONDS) -> None:
        self._command, self._patience = list(command), patience
        self._turn = threading.Lock()
        self._ids = itertools.count(1)
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._ready = False
        """Whether this helper has spoken: until then it loads its libraries."""

    @property
    def alive(self) -> bool:
        """Whether the helper is there."""
        return self._process is not None and self._process.poll() is None

    def warm(self) -> None:
        """Start the helper, if there is none, so that it has loaded its libraries when the first question comes.

        Raises:
            RunError: it cannot be started.
        """
        demo_mode.refuse()
        if self._turn.acquire(blocking=False):  # else it is just being asked
            try:
                if not self.alive:
                    self._start()
            finally:
                self._turn.release()

    def ask(self, request: Mapping[str, Any], on_progress: Callable[[str], object] = lambda message: None) -> Any:
        """The helper's answer to `request`, see `trial_worker`; `on_progress` is told what it does meanwhile.

        Raises:
            RunError: what the helper cannot do, in its words; or it ended twice, or says nothing any more.
        """
        demo_mode.refuse()  # the helper has torch in its memory
        with self._turn:
            for _ in range(2):
                if not self.alive:
                    self._start()
                if not self._ready:
                    on_progress("loading the libraries, which takes long only the first time")
                with contextlib.suppress(_EndedError):
                    return self._exchange({**request, "id": next(self._ids)}, on_progress)
                self.close()
            raise RunError("The helper process ended twice before it had an answer; see the server's log.")

    def close(self) -> None:
        """End the helper; the next question starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):  # what was left in a pipe that nobody reads
                        pipe.close()

    def _start(self) -> None:
        self.close()
        self._lines, self._ready = queue.Queue(), False
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                env=child_environment(),
            )
        except OSError as error:
            raise RunError(f"The helper process cannot be started: {error.strerror or error}.") from error
        threading.Thread(target=_read, args=(self._process, self._lines), daemon=True, name="hears the helper").start()

    def _exchange(self, request: Mapping[str, Any], on_progress: Callable[[str], object]) -> Any:
        process = self._process
        if process is None or process.stdin is None:
            raise _EndedError
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except OSError as error:
            raise _EndedError from error
        while True:
            try:
                line = self._lines.get(timeout=self._patience)
            except queue.Empty as error:
                self.close()
                raise RunError(f"The helper process said nothing for {self._patience:.0f} s; try again.") from error
            if line is None:
                raise _EndedError
            self._ready = True
            reply = json.loads(line)
            if reply["id"] != request["id"]:  # to a question whose page has gone
                continue
            if "error" in reply:
                raise RunError(reply["error"])
            if "answer" in reply:
                return reply["answer"]
            on_progress(reply["progress"])


class _EndedError(Exception):
    """The helper has gone."""


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    if process.stdout is not None:
        with contextlib.suppress(ValueError, OSError):  # closed meanwhile
            for line in process.stdout:
                lines.put(line)
    lines.put(None)
