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

    def stop(self, seconds=25):
        """SIGTERM to the child; its exit code. What is left of its group after that is killed."""
        if self.child.poll() is None:
            self.child.terminate()
        try:
            return self.child.wait(seconds)
        finally:
            self.kill()

    def kill(self):
        """SIGKILL to the whole group; the group's leader is reaped."""
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()


def run(name, command, env, seconds, expect=0, cwd=ROOT):
    """Runs a command to its end; what it printed on stdout, and all of it in the log."""
    log = WORK / "log" / f"{name}.log"
    done = subprocess.run([str(part) for part in command], env=env, cwd=cwd, timeout=seconds,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    with open(log, "a") as output:
        output.write(f"$ {' '.join(str(part) for part in command)}\n{done.stdout}\n{done.stderr}\n")
    if done.returncode != expect:
        lines = (done.stdout + done.stderr).splitlines()[-25:]
        raise AssertionError(f"{name} ended with {done.returncode}, not {expect}:\n" + "\n".join(lines))
    return done


def wait_for(what, look, seconds, every=0.5, alive=()):
    """Calls `look` until it answers something true, for at most `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        for process in alive:
            process.check()
        if time.monotonic() > deadline:
            raise Gone(f"{what}: not within {seconds} s")
        time.sleep(every)
