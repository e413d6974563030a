"""The application under load: alone, beside the shipper, beside Litestream."""

import os
import re
import statistics
import subprocess
import sys
import time

from machine import apply, create_database, free_port, wait_for
from shippers import Litestream, Shipper

ALONE = "alone"


def beside(place, section, programs, seconds, rounds=1, **work):
    """One load beside each of the programs, and alone, in turns; prints and returns the rows of the table.

    Of several rounds the one with the median speed is told, with the worst commit and the largest log of all."""
    rows = {}

    def row(what, label, text):
        rows.setdefault(f"{section}: {what}", {})[label] = text

    runs = {}
    for turn in range(rounds):
        for label, program in [(ALONE, None)] + [(each.label, each) for each in programs]:
            name = f"{re.sub('[^a-z0-9]+', '-', section.lower())}-{label}-{turn}"
            runs.setdefault(label, []).append(one_load(place, name, program, seconds, work))
    alone = median(runs[ALONE])["per_second"]
    for label, told in runs.items():
        middle = median(told)
        speed = f"{middle['per_second']:.0f}"
        if label != ALONE and alone:
            speed += f" ({middle['per_second'] / alone:.2f})"
        row("commits/s (of its speed alone)", label, speed)
        worst = max(each["worst_ms"] for each in told)
        row("commit p50, p99, p99.9, worst", label, ", ".join(
            f"{middle[name]:.2f}" for name in ("p50_ms", "p99_ms", "p999_ms")) + f", {worst:.1f} ms")
        row("WAL at most", label, f"{max(each['wal'] for each in told):.0f} MB")
        refused = sum(each["refused"] for each in told)
        if refused:
            row("commits refused", label, str(refused))
        if work.get("megabytes"):
            row("the transaction", label, f"{middle['big_seconds']:.1f} s")
        if label != ALONE:
            row("CPU, peak memory", label, f"{middle['cpu']:.0f} %, "
                                           f"{max(each['peak'] for each in told):.1f} MB")
            row("requests a minute", label, middle["requests"])
            row("write lock taken (times, longest)", label, middle["locks"])
    return place.tell(rows)


def median(runs):
    return sorted(runs, key=lambda each: each["per_second"])[len(runs) // 2]


def one_load(place, name, program, seconds, work):
    """The load beside one program, or alone."""
    directory = place.directory(name)
    path = directory / "app.db"
    create_database(path, 10).close()
    running = program and program(directory, place.server, name, {"app": path})
    if running:
        wait_for(lambda: running.has_snapshot("app"), f"{name}: first snapshot")
        time.sleep(2)
        before, requests_before = running.costs(), place.server.requests()
    told = apply(place.application, path, seconds, **work)
    if running:
        after, lasted = running.costs(), seconds + told["big_seconds"]
        told["cpu"] = (after["cpu"] - before["cpu"]) / lasted * 100
        told["peak"] = after["peak"]
        told["requests"] = per_minute(place.server.requests() - requests_before, lasted)
        running.stop()
        told["locks"] = running.locks()
    place.discard(directory)
    return told


def per_minute(requests, seconds):
    text = ", ".join(f"{count * 60 / seconds:.0f} {kind}" for kind, count in sorted(requests.items()))
    return text or "none"


def lag(place, programs, samples):
    """A lone commit after a quiet time, until its file is in the bucket."""
    rows = {}
    for program in programs:
        directory = place.directory(f"lag-{program.label}")
        path = directory / "app.db"
        db = create_database(path, 10)
        running = program(directory, place.server, directory.name, {"app": path})
        wait_for(lambda: running.has_snapshot("app"), "first snapshot")
        time.sleep(3)
        lags = []
        for sample in range(samples):
            # Out of step with anybody's clock.
            time.sleep(1.3 + 0.7 * (sample * 0.618 % 1))
            before = len(running.files("app"))
            began = time.monotonic()
            db.execute("UPDATE item SET name = ? WHERE id = ?", (f"sample {sample}", sample + 1))
            wait_for(lambda: len(running.files("app")) > before, "commit in the bucket", 60, 0.002)
            lags.append((time.monotonic() - began) * 1000)
        db.close()
        running.stop()
        lags.sort()
        rows.setdefault(f"lag of a lone commit: p50, p99, worst of {samples}", {})[program.label] = (
            f"{statistics.median(lags):.0f}, {lags[int((samples - 1) * 0.99)]:.0f}, {lags[-1]:.0f} ms")
        place.discard(directory)
    return place.tell(rows)


def requests(place, programs, seconds):
    """Requests and costs, idle and at 10 commits a second."""
    rows = {}
    for program in programs:
        directory = place.directory(f"requests-{program.label}")
        path = directory / "app.db"
        create_database(path, 100).close()
        running = program(directory, place.server, directory.name, {"app": path})
        wait_for(lambda: running.has_snapshot("app"), "first snapshot")
        time.sleep(10)
        for what, rate in (("idle, 100 MB", 0), ("10 commits/s", 10)):
            before, requests_before = running.costs(), place.server.requests()
            if rate:
                apply(place.application, path, seconds, rate=rate)
            else:
                time.sleep(seconds)
            after = running.costs()
            rows.setdefault(f"{what}: requests a minute", {})[program.label] = per_minute(
                place.server.requests() - requests_before, seconds)
            rows.setdefault(f"{what}: CPU, resident, peak", {})[program.label] = (
                f"{(after['cpu'] - before['cpu']) / seconds * 100:.2f} %, "
                f"{after['resident']:.1f} MB, {after['peak']:.1f} MB")
        running.stop()
        place.discard(directory)
    return place.tell(rows)


def many(place, programs, count, seconds):
    """Idle databases of 1 MB in one process."""
    rows = {}
    template = place.directory("many-template") / "app.db"
    create_database(template, 1).close()
    content = template.read_bytes()
    for program in programs:
        directory = place.directory(f"many-{count}-{program.label}")
        databases = {}
        for number in range(count):
            databases[f"db{number}"] = path = directory / f"db{number}.db"
            path.write_bytes(content)
        os.sync()
        began = time.monotonic()
        running = program(directory, place.server, directory.name, databases)
        what = f"{count} idle databases of {len(content) >> 10} KB"
        try:
            wait_for(lambda: running.costs() and all(running.has_snapshot(name) for name in databases),
                     "snapshots", 600, 1)
        except (TimeoutError, RuntimeError) as error:
            rows.setdefault(f"{what}: resident, peak, CPU", {})[program.label] = f"failed: {error}"[:200]
            running.stop()
            continue
        took = time.monotonic() - began
        time.sleep(15)
        before, requests_before = running.costs(), place.server.requests()
        time.sleep(seconds)
        after = running.costs()
        rows.setdefault(f"{what}: resident, peak, CPU", {})[program.label] = (
            f"{after['resident']:.1f} MB, {after['peak']:.1f} MB, "
            f"{(after['cpu'] - before['cpu']) / seconds * 100:.2f} %")
        rows.setdefault(f"{what}: all in the bucket after, threads, open files", {})[program.label] = (
            f"{took:.0f} s, {after['threads']}, {after['files']}")
        rows.setdefault(f"{what}: requests a minute", {})[program.label] = per_minute(
            place.server.requests() - requests_before, seconds)
        running.stop()
        place.discard(directory)
    return place.tell(rows)


def snapshot(place, programs, megabytes, megabytes_per_second, rate):
    """The first snapshot of a large database through a slow line, while the application writes."""
    rows = {}
    for program in programs:
        directory = place.directory(f"snapshot-{program.label}")
        path = directory / "app.db"
        create_database(path, megabytes).close()
        port = free_port()
        line = subprocess.Popen([sys.executable, place.slow_line, str(port), str(place.server.port),
                                 str(megabytes_per_second)])
        began = time.monotonic()
        running = program(directory, place.server, directory.name, {"app": path},
                          f"http://127.0.0.1:{port}")
        told, figures = [], {}
        while not running.has_snapshot("app") and time.monotonic() - began < 1800:
            told.append(apply(place.application, path, 5, rate=rate))
            figures = running.costs()
        took = time.monotonic() - began
        running.stop()
        line.kill()
        line.wait()
        rows.setdefault(f"snapshot of {megabytes} MB through {megabytes_per_second} MB/s, application at {rate} "
                        "commits/s: took, worst commit, WAL at most, peak memory", {})[program.label] = (
            f"{took:.0f} s, {max(each['worst_ms'] for each in told):.1f} ms, "
            f"{max(each['wal'] for each in told):.0f} MB, {figures['peak']:.1f} MB")
        place.discard(directory)
    return place.tell(rows)


PROGRAMS = (Shipper, Litestream)
