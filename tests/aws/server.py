"""The server of the test: an application that writes, and the real shipper beside it."""

import json
import sqlite3
import sys
from pathlib import Path

from place import PATIENCE, ROOT, WORK, Process, environment, run, wait_for

SHIPPER = ROOT / "target" / "debug" / "shipper"
VERIFIER = ROOT / "target" / "debug" / "verifier"
DATABASE = "app"

CONFIG = """
state_dir = "{state}"
[replica]
url = "{url}"
endpoint = "{endpoint}"
region = "{region}"
[[database]]
path = "{database}"
name = "app"
sync_interval = "1s"
[heartbeat]
every = "1s"
idle_every = "2s"
"""


class Server:
    """One server with one database."""

    def __init__(self, cloud, outputs, keys):
        self.cloud = cloud
        self.keys = keys
        self.path = WORK / "server" / "app.db"
        self.path.parent.mkdir()
        self.config = WORK / "server" / "shipper.toml"
        self.config.write_text(CONFIG.format(
            state=WORK / "server" / "state", url=outputs["ReplicaUrl"], endpoint=cloud.url,
            region=outputs["ReplicaRegion"], database=self.path))
        self.writer = self.shipper = None

    def environment(self, key):
        """The shipper's environment, with the key of this user."""
        return environment(**self.keys[key], SSL_CERT_FILE=str(self.cloud.certificate))

    def start_writer(self):
        """Starts the application, and waits for its first orders."""
        self.writer = Process("writer", [sys.executable, Path(__file__).with_name("writer.py"), self.path],
                              environment())
        wait_for("the first orders", lambda: self.orders() > 5, alive=[self.writer])

    def start_shipper(self):
        """Starts the shipper with the ship policy's key."""
        self.shipper = Process("shipper", [SHIPPER, "run", "--config", self.config], self.environment("ship"))

    def stop_shipper(self):
        """SIGTERM, and a final sync."""
        code = self.shipper.stop()
        assert code == 0, f"shipper ended with {code}:\n{self.shipper.tail()}"

    def orders(self):
        """Orders in the live database; 0 before there is a table."""
        try:
            return rows(self.path, "orders")
        except sqlite3.OperationalError:
            return 0

    def restore(self, url, key, output, expect=0):
        """`shipper restore` without any configuration, as on a new machine."""
        return run(f"restore-as-{key}", [SHIPPER, "restore", url, "--endpoint", self.cloud.url, "--output", output],
                   self.environment(key), PATIENCE, expect)

    def drill(self, outputs, key, txid):
        """`verifier drill --json` elsewhere, with the same ledger; the record."""
        settings = environment(
            **key, **self.cloud.client(), AWS_REGION=outputs["ReplicaRegion"],
            SEAWORTHY_REPLICA__URL=outputs["ReplicaUrl"], SEAWORTHY_REPLICA__ENDPOINT=self.cloud.url,
            SEAWORTHY_LEDGER__URL=outputs["LedgerUrl"])
        done = run("drill", [VERIFIER, "drill", DATABASE, "--at", txid, "--json"], settings, PATIENCE)
        return json.loads(done.stdout)

    def points(self, url, key):
        """`shipper points --json`."""
        done = run("points", [SHIPPER, "points", url, "--endpoint", self.cloud.url, "--json"],
                   self.environment(key), PATIENCE)
        return json.loads(done.stdout)

    def close(self):
        """Kills what still runs."""
        for process in (self.writer, self.shipper):
            if process:
                process.kill()


def rows(path, table):
    """Rows of one table."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=PATIENCE)
    try:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    finally:
        connection.close()


def dump(path, orders=None):
    """Everything in a database, row by row; of the orders only the first so many."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=PATIENCE)
    limits = {} if orders is None else {"orders": f" LIMIT {orders}"}
    try:
        return {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1{limits.get(table, '')}").fetchall()
                for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")}
    finally:
        connection.close()
