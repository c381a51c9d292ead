"""The server that the tests talk to: the real binary with its demo model.

MILLRACE is the binary's path, build/millrace by default. The server takes a free port of the loopback interface.
"""

import contextlib
import json
import os
import subprocess
import threading
from pathlib import Path

BINARY = os.environ.get("MILLRACE") or Path(__file__).parents[2] / "build" / "millrace"


@contextlib.contextmanager
def running(*flags: str, until: str = "ready", environment: dict = {}):
    """The address of a server started with the flags, which is ready, or has said another message to wait for."""
    command = [BINARY, "serve", "--hostname", "127.0.0.1", "--port", "0", "--json-output", *flags]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
    address, log = None, []
    try:
        for line in server.stderr:
            log.append(line)
            entry = json.loads(line)
            if entry["message"] == "listening":
                address = entry["address"]
            if entry["message"] == until:
                break
        else:
            raise RuntimeError("the server ended:\n" + "".join(log))
        threading.Thread(target=server.stderr.read, daemon=True).start()  # or it would block one day
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait(30)
