"""Drills and restores of a long chain of small files, before and after a compaction, beside Litestream."""

import os
import pathlib
import statistics
import subprocess
import threading
import time

from machine import ROOT, TOOLS, create_database, environment
from shippers import Shipper

GENERATION = "01938c5e-7a00-7000-8000-00000000000a"


class Disk(threading.Thread):
    """The most that the files below a directory take while something runs, MB."""

    def __init__(self, directory):
        super().__init__(daemon=True)
        self.directory, self.most, self.over = directory, 0, False
        self.start()

    def run(self):
        while not self.over:
            total = 0
            for path in self.directory.rglob("*"):
                try:
                    total += path.stat().st_blocks * 512
                except FileNotFoundError:
                    pass
            self.most = max(self.most, total / 2**20)
            time.sleep(0.05)

    def end(self):
        self.over = True
        self.join()
        return self.most


class Chain:
    """A database, and its replica of a snapshot and many files of one transaction each."""

    def __init__(self, place, megabytes, files):
        self.server, self.files = place.server, files
        self.directory = place.directory(f"chain-{megabytes}-{files}")
        self.name, self.temporary = self.directory.name, self.directory / "tmp"
        self.temporary.mkdir()
        source = self.directory / "app.db"
        create_database(source, megabytes).close()
        chain = self.server.data / self.name / "app" / GENERATION
        subprocess.run([ROOT / "target/debug/long-chain", source, chain, str(files)], check=True)
        self.size = source.stat().st_size >> 20
        self.url = f"s3://backups/{self.name}/app"
        copy = self.directory / "copy.db"
        there = ["--endpoint", self.server.endpoint]
        verifier = Shipper.binary.with_name("verifier")
        self.commands = {
            "drill": [verifier, "drill", self.url, *there],
            "restore": [Shipper.binary, "restore", self.url, *there, "--output", copy],
            "compact": [verifier, "compact", self.url, *there],
            "litestream": [TOOLS / "litestream", "restore", "-o", copy,
                           f"{self.url}/{GENERATION}?endpoint={self.server.endpoint}"
                           "&region=us-east-1&forcePathStyle=true"],
        }
        self.copy = copy

    def run(self, label, limit=1800):
        """Seconds, MB of memory, MB of disk, requests; None where it fails or takes longer."""
        for path in self.directory.glob("copy.db*"):
            path.unlink()
        os.sync()
        settings = environment() | {
            "TMPDIR": str(self.temporary), "SEAWORTHY_LEDGER__URL": f"sqlite://{self.directory}/ledger.db",
            "SEAWORTHY_COMPACTION__SNAPSHOT_EVERY": "7d", "RUST_LOG": "error"}
        disk, asked, began = Disk(self.temporary), self.server.requests(), time.monotonic()
        with open(self.directory / f"{label}.log", "wb") as log:
            process = subprocess.Popen(self.commands[label], env=settings, stdout=log, stderr=log)
            timer = threading.Timer(limit, process.kill)
            timer.start()
            _, code, usage = os.wait4(process.pid, 0)
            timer.cancel()
        took, most = time.monotonic() - began, disk.end()
        requests = sum((self.server.requests() - asked).values())
        if code:
            said = (self.directory / f"{label}.log").read_text(errors="replace").strip().splitlines()
            print(f"{label}: ended with {code} after {took:.1f} s: {said[-1:]}", flush=True)
            return None
        return took, usage.ru_maxrss / 1024, most, requests


def told(runs):
    """The median time of several runs and the most of everything else."""
    if not runs or None in runs:
        return "failed"
    took, memory, disk, requests = zip(*runs)
    text = f"{statistics.median(took):.2f} s, {max(memory):.0f} MB"
    return text + (f", {max(disk):.0f} MB of disk" if max(disk) > 0 else "") + f", {max(requests)} requests"


def drills(place, megabytes, rounds):
    """A drill of a large database with few files, beside a restore by each program."""
    chain = Chain(place, megabytes, 10)
    what = f"{chain.size} MB in few files"
    place.tell({
        f"{what}: drill": {"shipper": told([chain.run("drill") for _ in range(rounds)])},
        f"{what}: restore": {"shipper": told([chain.run("restore") for _ in range(rounds)]),
                             "litestream": told([chain.run("litestream") for _ in range(rounds)])},
    })
    place.discard(chain.directory)


def compaction(place, megabytes, files, rounds):
    """Restores from many small files, the compaction of them, and restores after it."""
    chain = Chain(place, megabytes, files)
    what = f"{chain.size} MB and {files:,} files of one transaction"
    for when in ("before", "after"):
        if when == "after":
            place.tell({f"{what}: compaction": {"shipper": told([chain.run("compact")])}})
            levels = pathlib.Path(chain.server.data / chain.name / "app" / GENERATION)
            made = {level: len(list((levels / level).glob("*.ltx"))) for level in ("0001", "0002", "0003")
                    if (levels / level).exists()}
            print(f"files made: {made}", flush=True)
        place.tell({
            f"{what}: drill {when}": {"shipper": told([chain.run("drill") for _ in range(rounds)])},
            f"{what}: restore {when}": {"shipper": told([chain.run("restore") for _ in range(rounds)]),
                                        "litestream": told([chain.run("litestream")])},
        })
    place.discard(chain.directory)
