#!/usr/bin/env python3
"""Runs the test programs that `cargo test --no-run --message-format=json` names on stdin, some at a time.

Most suites wait more than they compute, so that two cores have room for three of them. Each runs as cargo would run
it: in its package's directory. Prints each one's output whole when it ends; exits with 1 if one failed.
"""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import time

AT_ONCE = 3
# The longest first, so that the last one does not keep the others' cores waiting.
LONGEST = ["sim_engine", "crash_kill", "ship_load", "ship_every_txid", "control_sync", "crash_sweep"]


def programs():
    for line in sys.stdin:
        if not line.startswith("{"):
            continue
        message = json.loads(line)
        if message.get("executable") and message["profile"]["test"]:
            name = message["target"]["name"]
            yield name, message["executable"], pathlib.Path(message["manifest_path"]).parent


def run(name, executable, directory):
    began = time.monotonic()
    environment = dict(os.environ, CARGO_MANIFEST_DIR=str(directory))
    ended = subprocess.run(
        [executable], cwd=directory, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )
    return name, ended.returncode, time.monotonic() - began, ended.stdout.decode(errors="replace")


def main():
    def order(program):
        return LONGEST.index(program[0]) if program[0] in LONGEST else len(LONGEST)

    failed = []
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        suites = [pool.submit(run, *program) for program in sorted(programs(), key=order)]
        for suite in concurrent.futures.as_completed(suites):
            name, code, seconds, output = suite.result()
            print(f"--- {name}: {seconds:.0f} s\n{output}", flush=True)
            if code != 0:
                failed.append(name)
                if "test result:" not in output:
                    # It died before it could say so.
                    print("test result: FAILED. 0 passed; 1 failed; 0 ignored;", flush=True)
    if not suites:
        sys.exit("no test programs on stdin")
    if failed:
        sys.exit("failed: " + ", ".join(failed))


main()
