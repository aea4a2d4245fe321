"""A TCP proxy between a store and a PostgreSQL server, that breaks connections at chosen moments."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy.engine import URL
from typing_extensions import Self

Moment = Literal["before", "after", "middle"]
"""Before what the client sent reaches the server; after the server has answered, and before that arrives; in the
middle of the answer."""

Harm = Literal["cut", "hole", "hold"]
"""Reset the connection; let nothing through any more, without a word to anybody; hold the bytes back until told."""


@dataclass(eq=False)
class Fault:
    """What is to go wrong, once, with the first connection on which the client sends certain bytes."""

    trigger: bytes
    moment: Moment
    harm: Harm
    fired: asyncio.Event = field(default_factory=asyncio.Event)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    """What is held back goes on."""
    delivered: asyncio.Event = field(default_factory=asyncio.Event)


class _Line:
    """One connection: the client's side, the server's, and what is done to it."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.client = client
        self.server = server
        self.is_hole = False
        self.fault: Fault | None = None
        """Struck by the client's bytes; waits for the answer."""

    async def upward(self, data: bytes) -> None:
        fault = self.proxy.strike(data)
        if fault is not None and fault.moment == "before":
            if await self._is_over(fault):
                return
        elif fault is not None:
            self.fault = fault
        if not self.is_hole:
            self.server.write(data)
            await self.server.drain()
            if fault is not None:
                fault.delivered.set()

    async def downward(self, data: bytes) -> None:
        fault, self.fault = self.fault, None
        if fault is not None:
            half = data[: len(data) // 2] if fault.moment == "middle" else b""
            if half and not self.is_hole:
                self.client.write(half)
                await self.client.drain()
            if await self._is_over(fault):
                return
            data = data[len(half) :]
        if not self.is_hole:
            self.client.write(data)
            await self.client.drain()

    async def _is_over(self, fault: Fault) -> bool:
        """Do the harm; whether nothing more gets through."""
        fault.fired.set()
        if fault.harm == "cut":
            self.cut()
        elif fault.harm == "hole":
            self.is_hole = True
        else:
            await fault.let_go.wait()
        return fault.harm != "hold"

    def cut(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


class Proxy:
    """Listens on loopback and passes on to the server, whether that listens on a port or on a socket."""

    def __init__(self, server: URL) -> None:
        self._url = server
        self._lines: set[_Line] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._faults: list[Fault] = []
        self._server: asyncio.Server | None = None
        self.is_hole = False
        """Whether the whole network is gone: nobody refuses a connection, and nobody answers."""
        self.port = 0

    @property
    def url(self) -> str:
        """The server's URL as the store is to know it."""
        url = self._url.set(host="127.0.0.1", port=self.port).difference_update_query(["host", "port"])
        return url.render_as_string(hide_password=False)

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- harm --------------------------------------------------------------------------------------

    def arm(self, trigger: bytes, moment: Moment, harm: Harm) -> Fault:
        """Break the first connection on which the client sends these bytes, at that moment."""
        fault = Fault(trigger, moment, harm)
        self._faults.append(fault)
        return fault

    def strike(self, data: bytes) -> Fault | None:
        for fault in self._faults:
            if fault.trigger in data:
                self._faults.remove(fault)
                return fault
        return None

    def cut_all(self) -> int:
        """Reset every connection; how many there were."""
        lines = list(self._lines)
        for line in lines:
            line.cut()
        return len(lines)

    def swallow_all(self) -> None:
        """Let nothing through any more, on the connections that there are and on new ones."""
        self.is_hole = True
        for line in self._lines:
            line.is_hole = True

    def restore(self) -> None:
        """New connections get through again. Those of before have lost bytes: they stay silent for ever."""
        self.is_hole = False

    # -- passing on ----------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(ConnectionError):
            upstream, server = await self._connect()
            line = _Line(self, writer, server)
            line.is_hole = self.is_hole
            self._lines.add(line)
            try:
                # Whichever side ends first: what the other one gets is an end, too, unless nothing gets through.
                ways = [
                    asyncio.ensure_future(_pass(reader, line.upward)),
                    asyncio.ensure_future(_pass(upstream, line.downward)),
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)
            finally:
                self._lines.discard(line)
                line.cut()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        url = self._url
        host = str(url.host or url.query.get("host", "127.0.0.1"))
        port = int(url.port or str(url.query.get("port", 5432)))
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)


async def _pass(reader: asyncio.StreamReader, on: object) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            await on(data)
