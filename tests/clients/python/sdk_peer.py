"""Somebody with a matrix-js-sdk client that encrypts, driven from here through the lines that it reads and prints."""

import asyncio
import json
import os
from pathlib import Path

from person import PATIENCE

PROGRAM = Path(__file__).resolve().parents[1] / "js" / "peer.js"


class SdkPeer:
    """Its id and device are there once it has arrived."""

    def __init__(self, process):
        self._process = process

    @classmethod
    async def arrive(cls, name):
        process = await asyncio.create_subprocess_exec(
            os.environ["HEARTH_NODEJS"],
            PROGRAM,
            env={**os.environ, "HEARTH_CLIENT_LOG": ""},  # it would mix its log with its answers
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        peer = cls(process)
        try:
            arrived = await peer.asks("arrive", name=name)
        except BaseException:
            await peer.leave()
            raise
        peer.username, peer.id, peer.device = name, arrived["id"], arrived["device"]
        return peer

    async def asks(self, what, **arguments):
        """Has it do something and returns its answer."""
        self._process.stdin.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
        await self._process.stdin.drain()
        # What it does waits for what it expects by itself, so that its own message comes first.
        line = await asyncio.wait_for(self._process.stdout.readline(), 2 * PATIENCE)
        assert line, f"matrix-js-sdk ended while it was asked to {what}"
        answer = json.loads(line)
        assert "error" not in answer, f"matrix-js-sdk could not {what}: {answer['error']}"
        return answer

    async def leave(self):
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
