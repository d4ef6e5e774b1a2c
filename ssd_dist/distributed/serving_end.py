"""The end of a service: what was let in is answered, and what comes after is told so."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import uvicorn

_TICK_S = 0.1
_QUIET_S = 0.5
_MOST_S = 10.0


class EndingServer(uvicorn.Server):
    """uvicorn's server, which at its end refuses for a moment before it closes.

    By itself it closes idle connections and the listening socket as soon as it is told to end. A
    client that is asking just then, on a connection that was kept alive or one that nobody has
    accepted yet, sees it reset, and can't tell whether its picture was looked at.
    """

    def __init__(self, config: uvicorn.Config, ending: threading.Event) -> None:
        """`ending` is set from the signal on; the application then refuses all that is new."""
        super().__init__(config)
        self._ending = ending

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes once nothing was asked for half a second, after ten seconds at the latest; what is
        under way then is still answered."""
        self._ending.set()
        latest = time.monotonic() + _MOST_S
        quiet_since, num_answered = time.monotonic(), self.server_state.total_requests
        while not self.force_exit and (now := time.monotonic()) < latest:
            if self.server_state.tasks or self.server_state.total_requests != num_answered:
                quiet_since, num_answered = now, self.server_state.total_requests
            elif now - quiet_since >= _QUIET_S:
                break
            await asyncio.sleep(_TICK_S)
        await super().shutdown(sockets)
