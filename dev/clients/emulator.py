"""SageMaker and Lambda on this machine: the emulators of the real binary, with its demo model behind them."""

import base64
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from server import BINARY

EXAMPLES = Path(__file__).parents[2] / "examples"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
               "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
# A bearer token of SageMaker's form: a presigned request in base64, here without its signature.
TOKEN = "sagemaker-api-key-" + base64.b64encode(b"https://sagemaker.us-east-1.amazonaws.com/?Action=CallWithBearerToken").decode()
# Of each platform: boto3's name, the variable with its address, and the flag that names what is emulated.
SERVICES = {
    "sagemaker": ("sagemaker-runtime", "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", "--endpoint"),
    "lambda": ("lambda", "AWS_ENDPOINT_URL_LAMBDA", "--function"),
}


class Emulator:
    """An emulator that is ready. What it emulates is called millrace."""

    def __init__(self, platform: str, process: subprocess.Popen):
        self.process, self.log = process, []
        self.service, self.variable, _ = SERVICES[platform]
        line = process.stdout.readline()
        found = re.search(self.variable + r"=(https?://\S+)", line)
        if not found:
            raise RuntimeError(f"the emulator said {line!r}, then:\n" + process.stdout.read() + process.stderr.read())
        self.url = found[1]
        for pipe in process.stdout, process.stderr:  # or it would block one day
            threading.Thread(target=self.log.extend, args=[pipe], daemon=True).start()

    @property
    def environment(self):
        """The variables that lead AWS clients here."""
        return {**CREDENTIALS, self.variable: self.url}

    def client(self):
        import boto3  # not every environment has it

        return boto3.client(self.service, endpoint_url=self.url, region_name="us-east-1", aws_access_key_id="local", aws_secret_access_key="local")

    def logged(self, text: str) -> str:
        """The lines of the log with a text, which may take a moment to arrive."""
        for _ in range(100):
            lines = [line for line in self.log if text in line]
            if lines:
                return "".join(lines)
            time.sleep(0.05)
        return ""

    def kill_containers(self):
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        for pid in " ".join(c.read_text() for c in children).split():
            os.kill(int(pid), signal.SIGKILL)

    def run(self, example: str, *arguments: str) -> str:
        """What an example prints, a Python script or one of the shell."""
        command = [sys.executable, EXAMPLES / example] if example.endswith(".py") else ["sh", EXAMPLES / example]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, **self.environment, "PATH": path, "SAGEMAKER_TOKEN": TOKEN, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextlib.contextmanager
def emulator(platform: str, *flags: str):
    command = [BINARY, platform, "local", SERVICES[platform][2], "millrace", "--port", "0", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **CREDENTIALS})
    try:
        yield Emulator(platform, process)
    finally:
        process.terminate()
        process.wait(40)
