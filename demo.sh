#!/usr/bin/env bash
# The whole path on this machine, in a minute: a database is written, shipped, lost, restored and
# proven; then the replica is damaged, and the drill says so.
#
# Everything happens in .demo/ inside the checkout (ignored by git, made anew at each run). The replica
# is a directory and the ledger a SQLite file here; in production they are S3 and DynamoDB.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# Nothing of the caller's reaches the programs, and nothing of theirs leaves the folder.
unset STATE_DIRECTORY RUNTIME_DIRECTORY NOTIFY_SOCKET AWS_LAMBDA_RUNTIME_API RUST_LOG RUST_BACKTRACE
for variable in "${!SEAWORTHY_@}"; do unset "$variable"; done

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
show() { printf '$ %s\n' "$*"; }
# run COMMAND…: prints it as typed, runs it, and ends the demo when it fails.
run() { show "$@"; "$@"; }
fail() { printf '\ndemo: %s\n' "$*" >&2; exit 1; }

running=()
stop_all() {
    for process in "${running[@]}"; do kill -9 "$process" 2>/dev/null || true; done
    # A killed process may still be in the middle of a system call.
    for process in "${running[@]}"; do while kill -0 "$process" 2>/dev/null; do sleep 0.05; done; done
}
trap stop_all EXIT

say "Build (once; debug profile, for speed)"
run cargo build --quiet --package shipper --package verifier --bins
PATH=$PWD/target/debug:$PATH

rm -rf .demo
mkdir -p .demo/server .demo/replica .demo/elsewhere
cd .demo
export TMPDIR=$PWD/elsewhere

cat >application.py <<'PYTHON'
"""An application: customers place orders, a few dozen a second, until the server is lost."""
import random, sqlite3, time

database = sqlite3.connect("server/shop.db", isolation_level=None)
database.executescript("""
    PRAGMA journal_mode = WAL;
    CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    CREATE TABLE purchase (id INTEGER PRIMARY KEY, customer INTEGER NOT NULL REFERENCES customer,
                           cents INTEGER NOT NULL, placed_at REAL NOT NULL);
    INSERT INTO customer (name) VALUES ('Ada'), ('Grace'), ('Edsger'), ('Barbara'), ('Donald');
""")
while True:
    database.execute("INSERT INTO purchase (customer, cents, placed_at) VALUES (?, ?, ?)",
                     (random.randint(1, 5), random.randint(100, 99_999), time.time()))
    time.sleep(0.02)
PYTHON
cat >shipper.toml <<TOML
state_dir = "$PWD/server/state"
[replica]
url = "file://$PWD/replica"
[[database]]
path = "$PWD/server/shop.db"
TOML
cat >verifier.toml <<TOML
[replica]
url = "file://$PWD/replica"
[ledger]
url = "sqlite://$PWD/elsewhere/ledger.db"
TOML

count() { sqlite 'SELECT count(*) FROM purchase' "$1"; }
# sqlite SQL FILE: the answer, read without leaving -wal or -shm beside FILE unless they are there.
sqlite() {
    python3 -c 'import sqlite3, sys; print(sqlite3.connect(f"file:{sys.argv[2]}?mode=ro", uri=True).execute(sys.argv[1]).fetchone()[0])' "$@"
}
# Waits until COMMAND… succeeds, at most five minutes.
wait_until() {
    local deadline=$((SECONDS + 300))
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "waited in vain for: $*"
        sleep 0.2
    done
}

say "On the server: an application writes to SQLite"
show "python3 application.py &"
python3 application.py &
running+=($!)
disown
wait_until count server/shop.db

say "On the server: the shipper ships what it commits (the configuration is six lines)"
run cat shipper.toml
show "shipper run --config shipper.toml &"
shipper run --config shipper.toml 2>server/shipper.log &
shipper=$!
running+=("$shipper")
disown

shipped_since() {
    shipper points shop --config shipper.toml --json |
        python3 -c '
import json, sys
from datetime import datetime
def seconds(text):
    whole, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(whole + "+00:00").timestamp() + float("0." + (fraction or "0"))
times = [seconds(point["timestamp"]) for point in json.load(sys.stdin)["points"]]
sys.exit(not times or max(times) < float(sys.argv[1]))' "$1"
}
wait_until shipped_since 0
sleep 5
committed=$(count server/shop.db)
moment=$(date +%s.%N)
wait_until shipped_since "$moment"
kill -0 "$shipper" || fail "the shipper has ended: $(cat server/shipper.log)"
echo "committed by now: $committed purchases"

say "The server is lost: both programs die at once, the disk is gone"
show "kill -9 application shipper; rm -r server"
stop_all
running=()
rm -r server

say "Elsewhere: what can be restored?"
show "shipper points shop --config shipper.toml"
shipper points shop --config shipper.toml >points.txt
if [ "$(wc -l <points.txt)" -gt 9 ]; then
    head -n 4 points.txt; echo "  …"; tail -n 3 points.txt
else
    cat points.txt
fi

say "Elsewhere: restore"
run shipper restore shop --config shipper.toml --output elsewhere/shop.db
restored=$(count elsewhere/shop.db)
echo "restored: $restored purchases; committed seconds before the loss: $committed"
[ "$restored" -ge "$committed" ] || fail "purchases are missing"
[ "$(sqlite 'PRAGMA integrity_check' elsewhere/shop.db)" = ok ] || fail "the restored database is damaged"

say "The drill: the verifier restores a copy of its own, checks it, and records the proof"
run verifier drill shop --config verifier.toml | tee drill.txt
grep -q PASS drill.txt || fail "the drill did not pass"
grep -qE 'purchase +'"$restored" drill.txt || fail "the drill did not count the purchases"

say "A backup that rots: one byte of a copy of the replica changes"
run cp -r replica damaged
newest=$(find damaged/shop -name '*.ltx' | sort | tail -n 1)
show "# one byte of ${newest#damaged/}"
python3 - "$newest" <<'PYTHON'
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(150)
    byte = file.read(1)[0]
    file.seek(150)
    file.write(bytes([byte ^ 1]))
PYTHON
show "verifier drill file://\$PWD/damaged/shop --config verifier.toml"
code=0
verifier drill "file://$PWD/damaged/shop" --config verifier.toml >damaged.txt || code=$?
cat damaged.txt
show "echo \$?"
echo "$code"
[ "$code" = 1 ] || fail "the drill of the damaged replica ended with $code, not with 1"
grep -q FAIL damaged.txt || fail "the drill of the damaged replica did not say FAIL"

say "Done: shipped, lost, restored, proven; and the rotten copy was caught."
