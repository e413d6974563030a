"""What a measurement runs on: directories, the S3 server, child processes and what they cost."""

import collections
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools/bin"
KEYS = {"ROOT_ACCESS_KEY": "figures", "ROOT_SECRET_KEY": "not-a-secret"}
DROPPED = ("AWS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
KINDS = ("GetObject", "HeadObject", "PutObject", "ListObjects", "CreateMultipartUpload",
         "UploadPart", "CompleteMultipartUpload", "DeleteObject")


def environment():
    env = {k: v for k, v in os.environ.items() if k.upper() not in DROPPED}
    env.update(AWS_ACCESS_KEY_ID="figures", AWS_SECRET_ACCESS_KEY="not-a-secret",
               AWS_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="true", RUST_LOG="info")
    return env


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(condition, what, seconds=900, pause=0.02):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(pause)


class Server:
    """versitygw with one bucket; its access log counts the requests."""

    def __init__(self, directory):
        self.port = free_port()
        self.log = directory / "access.log"
        for name in ("data/backups", "sidecar"):
            (directory / name).mkdir(parents=True)
        self.process = subprocess.Popen(
            [TOOLS / "versitygw", "--port", f"127.0.0.1:{self.port}", "--region", "us-east-1",
             "--access-log", self.log, "posix", "--sidecar", directory / "sidecar",
             directory / "data"],
            env=environment() | KEYS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.answers, "versitygw", 30)
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.data = directory / "data/backups"

    def answers(self):
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def requests(self):
        counted = collections.Counter()
        if self.log.exists():
            with open(self.log) as log:
                for line in log:
                    counted[next((kind for kind in KINDS if kind in line), "other")] += 1
        return counted

    def discard(self, prefix):
        """Makes room: what a finished measurement uploaded."""
        shutil.rmtree(self.data / prefix, ignore_errors=True)


def costs(pid):
    """Resident memory now and at most (MB), processor seconds, threads, open files."""
    status = dict(line.split(":", 1) for line in
                  pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return {
        "resident": int(status["VmRSS"].split()[0]) / 1024,
        "peak": int(status["VmHWM"].split()[0]) / 1024,
        "cpu": (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
        "threads": int(status["Threads"]),
        "files": len(os.listdir(f"/proc/{pid}/fd")),
    }


def sqlite_sources():
    """The SQLite that the shipper is built with, as cargo unpacked it."""
    lock = (ROOT / "Cargo.lock").read_text()
    version = re.search(r'name = "libsqlite3-sys"\nversion = "([^"]+)"', lock).group(1)
    home = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
    found = sorted(home.glob(f"registry/src/*/libsqlite3-sys-{version}/sqlite3/sqlite3.c"))
    if not found:
        raise SystemExit(f"libsqlite3-sys {version} is not unpacked below {home}; run cargo fetch")
    return found[0].parent


def build_application():
    """Compiles application.c once; gives its path."""
    target = ROOT / "target/figures"
    target.mkdir(parents=True, exist_ok=True)
    source, program, engine = (pathlib.Path(__file__).with_name("application.c"),
                               target / "application", target / "sqlite3.o")
    sqlite = sqlite_sources()
    if not engine.exists():
        subprocess.run(["cc", "-O2", "-DSQLITE_THREADSAFE=2", "-c", sqlite / "sqlite3.c",
                        "-o", engine], check=True)
    subprocess.run(["cc", "-O2", "-Wall", "-I", sqlite, source, engine, "-o", program,
                    "-lpthread", "-lm", "-ldl"], check=True)
    return program


def create_database(path, megabytes):
    """Rows of which half compresses and half does not, and a small table that the application writes."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, body BLOB)")
    db.execute("CREATE INDEX item_name ON item (name)")
    db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) "
               "INSERT INTO item SELECT i, hex(randomblob(4)), randomblob(300) FROM n")
    db.execute("CREATE TABLE ballast (id INTEGER PRIMARY KEY, name TEXT, body BLOB)")
    db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
               "INSERT INTO ballast SELECT i, hex(zeroblob(240)), randomblob(480) FROM n",
               (max(1, megabytes * 1024 - 2048),))
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return db


def stop(process, seconds=120):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def apply(program, path, seconds, rate=0, readers=0, read_ms=0, megabytes=0, watch=None):
    """Runs the application; gives its figures and the largest size of the log, MB."""
    process = subprocess.Popen(
        [program, path, str(seconds), str(rate), str(readers), str(read_ms), str(megabytes)],
        stdout=subprocess.PIPE, text=True)
    wal, log = 0, pathlib.Path(f"{path}-wal")
    while process.poll() is None:
        if log.exists():
            wal = max(wal, log.stat().st_size)
        if watch:
            watch()
        time.sleep(0.02)
    if process.returncode:
        raise RuntimeError(f"application: {process.returncode}")
    return json.loads(process.stdout.read()) | {"wal": wal / 2**20}
