"""Measures what README.md's table says, on this machine, with the release binaries.

    cargo build --release -p shipper -p verifier && ./test.sh build   # the latter installs the tools
    python3 tests/figures/measure.py [--megabytes 100 1000] [--idle-seconds 60]

Everything runs on loopback: versitygw as the S3 server (its access log counts the requests), our
shipper, and Litestream restoring the same generation. Absolute times are the machine's; compare the two
columns of one run. Nothing is asserted.
"""

import argparse
import collections
import os
import pathlib
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHIPPER = ROOT / "target/release/shipper"
TOOLS = ROOT / ".tools/bin"
KEYS = {"ROOT_ACCESS_KEY": "figures", "ROOT_SECRET_KEY": "not-a-secret"}
DROPPED = ("AWS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def environment():
    env = {k: v for k, v in os.environ.items() if k.upper() not in DROPPED}
    env.update(AWS_ACCESS_KEY_ID="figures", AWS_SECRET_ACCESS_KEY="not-a-secret",
               AWS_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="true", RUST_LOG="warn")
    return env


class Server:
    """versitygw with one bucket."""

    def __init__(self, directory):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = directory / "access.log"
        for name in ("data/backups", "sidecar"):
            (directory / name).mkdir(parents=True)
        self.process = subprocess.Popen(
            [TOOLS / "versitygw", "--port", f"127.0.0.1:{self.port}", "--region", "us-east-1",
             "--access-log", self.log, "posix", "--sidecar", directory / "sidecar",
             directory / "data"],
            env=environment() | KEYS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while socket.socket().connect_ex(("127.0.0.1", self.port)):
            time.sleep(0.05)
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.data = directory / "data/backups"

    def requests(self):
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        kinds = ("GetObject", "HeadObject", "PutObject", "ListObjects", "CreateMultipartUpload",
                 "UploadPart", "CompleteMultipartUpload")
        counted = collections.Counter()
        for line in lines:
            counted[next((kind for kind in kinds if kind in line), "other")] += 1
        return counted


def process_figures(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    kib = {key: int(rest.split()[0]) for key, _, rest in
           (line.partition(":") for line in status.splitlines()) if key in ("VmRSS", "VmHWM")}
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return kib["VmRSS"] / 1024, kib["VmHWM"] / 1024, cpu


def create_database(path, megabytes):
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, body BLOB)")
    rows = megabytes * 1024
    # Half of each row compresses, half does not.
    db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
               "INSERT INTO item SELECT i, hex(zeroblob(240)), randomblob(480) FROM n", (rows,))
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return db


def start_shipper(directory, database, server, name):
    config = directory / f"{name}.toml"
    config.write_text(
        f'state_dir = "{directory}/state-{name}"\n[replica]\nurl = "s3://backups/{name}"\n'
        f'endpoint = "{server.endpoint}"\nregion = "us-east-1"\n'
        f'[[database]]\npath = "{database}"\nname = "app"\n')
    return subprocess.Popen([SHIPPER, "run", "--config", config], env=environment())


def generation(server, name):
    return next(path for path in (server.data / name / "app").iterdir() if path.is_dir())


def wait_for(condition, seconds=600):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(condition)
        time.sleep(0.02)


def has_files(server, name, level):
    base = server.data / name / "app"
    return base.is_dir() and any(base.glob(f"*/{level}/*.ltx"))


def idle(directory, server, megabytes, seconds):
    name = f"idle-{megabytes}"
    path = directory / f"{name}.db"
    create_database(path, megabytes).close()
    shipper = start_shipper(directory, path, server, name)
    began = time.monotonic()
    wait_for(lambda: has_files(server, name, "0009"))
    took = time.monotonic() - began
    time.sleep(8)
    _, peak, cpu_before = process_figures(shipper.pid)
    requests_before = server.requests()
    time.sleep(seconds)
    resident, _, cpu = process_figures(shipper.pid)
    requests = server.requests() - requests_before
    print(f"{megabytes} MB, idle: resident {resident:.1f} MB, peak with the snapshot {peak:.1f} MB "
          f"(in the bucket after {took:.1f} s), CPU {(cpu - cpu_before) / seconds * 100:.3f} %, "
          f"requests in {seconds} s: {dict(requests) or 'none'}", flush=True)
    return name, path, shipper


def lag(server, name, path, samples):
    """A lone commit after a quiet time, until its file is in the bucket."""
    db = sqlite3.connect(path, isolation_level=None)
    folder = generation(server, name) / "0000"
    lags = []
    for sample in range(samples):
        time.sleep(1.3)
        before = len(list(folder.glob("*.ltx"))) if folder.is_dir() else 0
        began = time.monotonic()
        db.execute("UPDATE item SET name = ? WHERE id = ?", (f"sample {sample}", sample + 1))
        while not folder.is_dir() or len(list(folder.glob("*.ltx"))) == before:
            time.sleep(0.002)
        lags.append((time.monotonic() - began) * 1000)
    lags.sort()
    print(f"lag of a lone commit: p50 {statistics.median(lags):.0f} ms, worst of {samples} "
          f"{lags[-1]:.0f} ms", flush=True)


def steady(server, path, seconds):
    before = server.requests()
    db = sqlite3.connect(path, isolation_level=None)
    for commit in range(seconds * 10):
        db.execute("UPDATE item SET name = ? WHERE id = ?", (f"steady {commit}", commit + 1))
        time.sleep(0.1)
    print(f"10 commits/s for {seconds} s: requests {dict(server.requests() - before)}", flush=True)


def write(path, seconds, result):
    db = sqlite3.connect(path, isolation_level=None, timeout=10)
    db.execute("PRAGMA synchronous = NORMAL")
    deadline, commits, worst = time.monotonic() + seconds, 0, 0.0
    while (began := time.monotonic()) < deadline:
        db.execute("INSERT OR REPLACE INTO item VALUES (abs(random()) % 5000, hex(randomblob(4)), "
                   "randomblob(300))")
        worst = max(worst, time.monotonic() - began)
        commits += 1
    result.append((commits / seconds, worst * 1000))


def full_speed(directory, server, seconds):
    figures = {}
    for label in ("alone", "shipped"):
        path = directory / f"speed-{label}.db"
        create_database(path, 10).close()
        shipper = label == "shipped" and start_shipper(directory, path, server, "speed")
        if shipper:
            wait_for(lambda: has_files(server, "speed", "0009"))
        result, wal = [], 0
        writer = threading.Thread(target=write, args=(path, seconds, result))
        writer.start()
        while writer.is_alive():
            wal = max(wal, os.path.getsize(f"{path}-wal") if os.path.exists(f"{path}-wal") else 0)
            time.sleep(0.05)
        figures[label] = result[0]
        line = f"full speed, {label}: {result[0][0]:.0f} commits/s, worst {result[0][1]:.0f} ms, WAL {wal >> 20} MB"
        if shipper:
            _, peak, cpu = process_figures(shipper.pid)
            line += f", shipper: peak {peak:.1f} MB, CPU {cpu / seconds * 100:.0f} %"
            stop(shipper)
        print(line, flush=True)
    print(f"the application's speed, of its speed alone: "
          f"{figures['shipped'][0] / figures['alone'][0]:.2f}", flush=True)


def timed(command):
    before = time.monotonic()
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
    _, code, usage = os.wait4(process.pid, 0)
    if code:
        raise RuntimeError(f"{command}: {code}")
    return time.monotonic() - before, usage.ru_maxrss / 1024


def restores(directory, server, name, path):
    chain = generation(server, name).name
    size = os.path.getsize(path) >> 20
    ours, theirs, memory = [], [], [0, 0]
    for _ in range(3):
        for times, index, command in (
            (ours, 0, [SHIPPER, "restore", f"s3://backups/{name}/app", "--endpoint",
                       server.endpoint, "--output", directory / "copy.db"]),
            (theirs, 1, [TOOLS / "litestream", "restore", "-o", directory / "copy.db",
                         f"s3://backups/{name}/app/{chain}?endpoint={server.endpoint}"
                         "&region=us-east-1&forcePathStyle=true"]),
        ):
            (directory / "copy.db").unlink(missing_ok=True)
            os.sync()
            seconds, peak = timed(command)
            times.append(seconds)
            memory[index] = max(memory[index], peak)
    began = time.monotonic()
    with open(path, "rb") as source, open(directory / "copy.db", "wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
        os.fsync(copy.fileno())
    disk = time.monotonic() - began
    ours, theirs = statistics.median(ours), statistics.median(theirs)
    print(f"restore of {size} MB: {ours:.2f} s, {memory[0]:.0f} MB; litestream {theirs:.2f} s, "
          f"{memory[1]:.0f} MB; ratio {theirs / ours:.1f}; a plain copy with fsync {disk:.2f} s",
          flush=True)


def stop(process):
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--idle-seconds", type=int, default=60)
    args = parser.parse_args()
    for binary in ("shipper", "verifier"):
        size = (ROOT / "target/release" / binary).stat().st_size
        print(f"{binary}: {size / 1e6:.1f} MB", flush=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as folder:
        directory = pathlib.Path(folder)
        server = Server(directory)
        try:
            for megabytes in args.megabytes:
                name, path, shipper = idle(directory, server, megabytes, args.idle_seconds)
                if megabytes == args.megabytes[0]:
                    lag(server, name, path, 30)
                    steady(server, path, 30)
                stop(shipper)
                restores(directory, server, name, path)
            full_speed(directory, server, 15)
        finally:
            server.process.kill()


if __name__ == "__main__":
    main()
