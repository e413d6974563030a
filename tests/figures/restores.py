"""Restores of the same generation by both programs, and a plain copy."""

import os
import shutil
import statistics
import subprocess
import time

from machine import TOOLS, create_database, environment, wait_for
from shippers import Shipper


def timed(command):
    before = time.monotonic()
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    _, code, usage = os.wait4(process.pid, 0)
    if code:
        raise RuntimeError(f"{command}: {code}")
    return time.monotonic() - before, usage.ru_maxrss / 1024


def restore(place, megabytes):
    """Ships a database of some size, then restores it three times with each program."""
    directory = place.directory(f"restore-{megabytes}")
    name, path, copy = directory.name, directory / "app.db", directory / "copy.db"
    create_database(path, megabytes).close()
    began = time.monotonic()
    running = Shipper(directory, place.server, name, {"app": path})
    wait_for(lambda: running.has_snapshot("app"), "first snapshot")
    snapshot = time.monotonic() - began
    peak = running.costs()["peak"]
    running.stop()
    chain = next(entry for entry in (place.server.data / name / "app").iterdir() if entry.is_dir())
    commands = {
        "shipper": [Shipper.binary, "restore", f"s3://backups/{name}/app", "--endpoint",
                    place.server.endpoint, "--output", copy],
        "litestream": [TOOLS / "litestream", "restore", "-o", copy,
                       f"s3://backups/{name}/app/{chain.name}?endpoint={place.server.endpoint}"
                       "&region=us-east-1&forcePathStyle=true"],
    }
    seconds, memory = {}, {}
    for _ in range(3):
        for label, command in commands.items():
            copy.unlink(missing_ok=True)
            os.sync()
            took, most = timed(command)
            seconds.setdefault(label, []).append(took)
            memory[label] = max(memory.get(label, 0), most)
    began = time.monotonic()
    with open(path, "rb") as source, open(copy, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
        os.fsync(target.fileno())
    plain = time.monotonic() - began
    what = f"restore of {path.stat().st_size >> 20} MB: time, memory"
    rows = {what: {"alone": f"a plain copy with fsync {plain:.2f} s"} | {
        label: f"{statistics.median(times):.2f} s, {memory[label]:.0f} MB"
        for label, times in seconds.items()}}
    rows[f"first snapshot of {megabytes} MB: in the bucket after, peak memory"] = {
        "shipper": f"{snapshot:.1f} s, {peak:.1f} MB"}
    place.discard(directory)
    return place.tell(rows)
