"""Somebody at a command line: matrix-commander, which logs in anew with every command from what it keeps in files."""

import asyncio
import json
import os
import sys
from pathlib import Path

from person import BASE_URL, PATIENCE

PROGRAM = Path(sys.executable).with_name("matrix-commander")


class Commander:
    def __init__(self, folder):
        """`folder` is where credentials, keys and everything else of this device are kept."""
        self.folder = folder
        # Settings of whoever runs the tests must not reach the program.
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
        self.environment["HOME"] = str(folder)

    @classmethod
    def of(cls, person, folder, default_room):
        """With the session of somebody who is logged in, as `--login` writes it down."""
        commander = cls(folder)
        credentials = {
            "homeserver": BASE_URL,
            "user_id": person.id,
            "device_id": person.client.device_id,
            "access_token": person.client.access_token,
            "room_id": default_room,
        }
        (folder / "credentials.json").write_text(json.dumps(credentials))
        (folder / "store").mkdir()
        return commander

    async def run(self, *arguments, stdin=""):
        """Runs a command that succeeds and returns what it printed, one object for each line."""
        code, printed, said = await self._run(arguments, stdin)
        assert code == 0, f"matrix-commander ended with {code}: {said}"
        return [json.loads(line) for line in printed.splitlines()]

    async def fails(self, *arguments):
        """Runs a command that fails and returns what it says about it."""
        code, printed, said = await self._run(arguments, "")
        assert code > 0, f"matrix-commander succeeded: {printed} {said}"
        return said

    async def _run(self, arguments, stdin):
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            *("--credentials", self.folder / "credentials.json", "--store", self.folder / "store"),
            *("--output", "json", *arguments),
            cwd=self.folder,
            env=self.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            printed, said = await asyncio.wait_for(process.communicate(stdin.encode()), PATIENCE)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()
            raise AssertionError(f"matrix-commander did not end within {PATIENCE} s: {arguments}") from None
        return process.returncode, printed.decode(), said.decode()
