"""A visitor without a browser: the client's side of one Streamlit session, which draws nothing.

Fifty browsers would take the machine from the server that they are to test. Only the messages that begin and end a
script are looked at.
"""

from __future__ import annotations

import time
from types import TracebackType

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

PATIENCE_SECONDS = 60.0


class Visitor:
    """One session with the server at `address`; leaving the context closes its tab."""

    def __init__(self, address: str) -> None:
        self._repeating: set[str] = set()
        """What draws itself every second."""
        self._connection = connect(
            f"{address.replace('http', 'ws', 1)}/_stcore/stream",
            subprotocols=["streamlit"],  # type: ignore[list-item]
            max_size=None,
            compression=None,
        )

    def __enter__(self) -> Visitor:
        self._socket = self._connection.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.__exit__(kind, error, trace)

    def visit(self, page: str, query: str = "") -> float:
        """Go to a page; seconds until its script has ended.

        Raises:
            TimeoutError: it takes very long.
        """
        message = BackMsg()
        message.rerun_script.page_name = page
        message.rerun_script.query_string = query
        self._repeating.clear()
        began = time.monotonic()
        self._socket.send(message.SerializeToString())
        self._wait_for_the_end(began + PATIENCE_SECONDS)
        return time.monotonic() - began

    def stay(self, seconds: float) -> None:
        """Look at the page: what redraws itself every second (`st.fragment(run_every=1)`) does so."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not self._repeating:
                time.sleep(left)
                return
            time.sleep(min(left, 1.0))
            for fragment in tuple(self._repeating):
                message = BackMsg()
                message.rerun_script.fragment_id = fragment
                message.rerun_script.is_auto_rerun = True
                self._socket.send(message.SerializeToString())
                self._wait_for_the_end(time.monotonic() + PATIENCE_SECONDS)

    def _wait_for_the_end(self, deadline: float) -> None:
        while True:
            message = ForwardMsg()
            message.ParseFromString(self._socket.recv(deadline - time.monotonic()))
            kind = message.WhichOneof("type")
            if kind == "auto_rerun":
                self._repeating.add(message.auto_rerun.fragment_id)
            elif kind == "script_finished":
                if message.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                    return
                self._repeating.clear()  # the whole page is drawn anew
