"""The application: commits to a SQLite database in WAL mode until it is told to stop.

The first state is larger than the shipper uploads in one piece, and does not compress.
"""

import signal
import sqlite3
import sys
import time

from place import PATIENCE

FIRST_BLOBS = 24


def main(path):
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    connection = sqlite3.connect(path, isolation_level=None, timeout=PATIENCE)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript("""
        CREATE TABLE IF NOT EXISTS customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
        CREATE TABLE IF NOT EXISTS orders (
            id INTEGER PRIMARY KEY, customer INTEGER NOT NULL REFERENCES customers (id),
            total INTEGER NOT NULL, created_at REAL NOT NULL);
        CREATE TABLE IF NOT EXISTS documents (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
    """)
    if not connection.execute("SELECT count(*) FROM documents").fetchone()[0]:
        for number in range(FIRST_BLOBS):
            connection.execute("INSERT INTO documents VALUES (?, randomblob(1048576))", (number,))
        connection.executemany("INSERT INTO customers VALUES (?, ?)", ((n, f"customer {n}") for n in range(100)))
    while not stop:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "INSERT INTO orders (customer, total, created_at) VALUES (abs(random()) % 100, abs(random()) % 10000, ?)",
            (time.time(),))
        connection.execute("COMMIT")
        time.sleep(0.05)
    # Left open to the end, as an application that is killed leaves it: its last close would
    # take the WAL away.
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
