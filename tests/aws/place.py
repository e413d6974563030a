"""Where the test works, what its children see of the machine, and how it waits.

Everything lies in `target/aws-e2e`, emptied at the start; nothing is left outside the checkout.
Children get an environment of their own: no AWS profile, no proxy, no other CA bundle.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "target" / "aws-e2e"
TOOLS = Path(sys.executable).parent
REGION = "eu-west-1"
# How long anything may take, in seconds: nothing here is about speed, and a machine may be slow.
PATIENCE = 300


def prepare():
    """Makes an empty place to work in."""
    shutil.rmtree(WORK, ignore_errors=True)
    for name in ("home", "tmp", "log"):
        (WORK / name).mkdir(parents=True)


def environment(**more):
    """A small environment for a child process."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TZ") if name in os.environ}
    return kept | {
        "HOME": str(WORK / "home"),
        "TMPDIR": str(WORK / "tmp"),
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    } | more


class Gone(AssertionError):
    """A child process ended, or a wait took too long."""


class Process:
    """A child in a process group of its own, with its output in a file."""

    def __init__(self, name, command, env):
        self.name = name
        self.log = WORK / "log" / f"{name}.log"
        with open(self.log, "ab") as output:
            self.child = subprocess.Popen(
                [str(part) for part in command], env=env, cwd=WORK, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True)

    def check(self):
        """Fails if the child has ended."""
        code = self.child.poll()
        if code is not None:
            raise Gone(f"{self.name} ended with {code}:\n{self.tail()}")

    def tail(self, lines=15):
        """The end of the child's output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self):
        """SIGTERM to the child; its exit code. What is left of its group after that is killed."""
        if self.child.poll() is None:
            self.child.terminate()
        try:
            return self.child.wait(PATIENCE)
        finally:
            self.kill()

    def kill(self):
        """SIGKILL to the whole group."""
        end_group(self.child)


def run(name, command, env, seconds, expect=0, cwd=ROOT):
    """Runs a command to its end; what it printed on stdout, and all of it in the log."""
    command = [str(part) for part in command]
    child = subprocess.Popen(command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True)
    try:
        stdout, stderr = child.communicate(timeout=seconds)
    finally:
        # On time, nothing is left of the group; late or interrupted, its compilers are.
        end_group(child)
    with open(WORK / "log" / f"{name}.log", "a") as output:
        output.write(f"$ {' '.join(command)}\n{stdout}\n{stderr}\n")
    if child.returncode != expect:
        lines = (stdout + stderr).splitlines()[-25:]
        raise AssertionError(f"{name} ended with {child.returncode}, not {expect}:\n" + "\n".join(lines))
    return subprocess.CompletedProcess(command, child.returncode, stdout, stderr)


def end_group(child):
    """SIGKILL to what is left of a child's process group; the child is reaped."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


def wait_for(what, look, alive=()):
    """Calls `look` until it answers something true, for at most `PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = look()
        if found:
            return found
        for process in alive:
            process.check()
        if time.monotonic() > deadline:
            raise Gone(f"{what}: not within {PATIENCE} s")
        time.sleep(0.5)
