"""Schemathesis on the OpenAPI document that the server serves: no server error, no status or body that the document does not name."""

import os
import subprocess
import sys
from pathlib import Path

from server import running

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def main() -> int:
    with running() as url:
        command = [Path(sys.executable).with_name("st"), "run", f"{url}/api-doc/openapi.json", "--checks", CHECKS, "--phases", "examples,coverage,fuzzing"]
        return subprocess.run(command, env=os.environ | {"SCHEMATHESIS_HOOKS": "schemathesis_hooks"}).returncode


if __name__ == "__main__":
    sys.exit(main())
