"""Measures what README.md's table says, on this machine, side by side with Litestream.

    cargo build --release -p shipper -p verifier && ./test.sh build   # the latter installs the tools and long-chain
    python3 tests/figures/measure.py                                  # everything: half an hour
    python3 tests/figures/measure.py --sections speed pace --seconds 5

Everything runs on loopback: an application in C, versitygw as the S3 server (its access log counts the
requests), and one after the other alone, beside the shipper, beside Litestream as it comes. Absolute times
are the machine's; compare the columns of one run. Nothing is asserted. The table is printed at the end.
"""

import argparse
import pathlib
import shutil
import tempfile

import compaction
import load
import restores
from machine import ROOT, Server, build_application
from shippers import Shipper

SECTIONS = {
    "speed": "the application at full speed",
    "pace": "at 1,000 commits/s",
    "readers": "at 1,000 commits/s with four overlapping readers of 20 ms",
    "reader": "at 1,000 commits/s with one reader of 60 s",
    "transaction": "one transaction of 1 GB, then 1,000 commits/s",
    "lag": "a lone commit after a quiet time",
    "requests": "idle, and at 10 commits/s",
    "many": "100 and 1,000 idle databases",
    "snapshot": "the first snapshot of 5 GB through a slow line",
    "restore": "restores of 100 MB and 1 GB",
    "drill": "a drill of 1 GB: time, memory, disk",
    "compact": "drills and restores of 100,000 small files, before and after their compaction",
}


class Place:
    """Where everything happens, and what was found."""

    def __init__(self, folder):
        self.folder = folder
        self.server = Server(folder)
        self.application = build_application()
        self.slow_line = pathlib.Path(__file__).with_name("slow_line.py")
        self.rows = {}

    def directory(self, name):
        path = self.folder / name
        path.mkdir()
        return path

    def discard(self, directory):
        self.server.discard(directory.name)
        shutil.rmtree(directory)

    def tell(self, rows):
        for what, cells in rows.items():
            told = "; ".join(f"{label} {text}" for label, text in cells.items())
            print(f"{what}: {told}", flush=True)
        self.rows |= rows

    def table(self):
        print("\n| what | alone | Seaworthy | Litestream |\n|---|---|---|---|")
        for what, cells in self.rows.items():
            print("|", " | ".join([what] + [cells.get(label, "") for label in
                                            ("alone", "shipper", "litestream")]), "|")


def measure(place, section, args):
    programs, seconds = load.PROGRAMS, args.seconds
    if section == "speed":
        load.beside(place, "full speed", programs, seconds, args.rounds)
    elif section == "pace":
        load.beside(place, "1,000 commits/s", programs, seconds, rate=1000)
    elif section == "readers":
        load.beside(place, "four readers of 20 ms", programs, seconds, rate=1000, readers=4, read_ms=20)
    elif section == "reader":
        load.beside(place, f"a reader of {args.read_seconds} s", programs, args.read_seconds + 5,
                    rate=1000, readers=1, read_ms=args.read_seconds * 1000)
    elif section == "transaction":
        load.beside(place, f"a transaction of {args.transaction} MB", programs, seconds, rate=1000,
                    megabytes=args.transaction)
    elif section == "lag":
        load.lag(place, programs, args.samples)
    elif section == "requests":
        load.requests(place, programs, args.idle_seconds)
    elif section == "many":
        for count in args.databases:
            load.many(place, programs, count, args.idle_seconds)
    elif section == "snapshot":
        load.snapshot(place, programs, args.snapshot, args.line, 1000)
    elif section == "restore":
        for megabytes in args.megabytes:
            restores.restore(place, megabytes)
    elif section == "drill":
        for megabytes in args.megabytes:
            compaction.drills(place, megabytes, args.rounds)
    elif section == "compact":
        compaction.compaction(place, args.compact, args.files, args.rounds)


def main():
    sections = "\n".join(f"  {name:12} {what}" for name, what in SECTIONS.items())
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=f"sections:\n{sections}",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--binaries", type=pathlib.Path, default=ROOT / "target/release")
    parser.add_argument("--seconds", type=int, default=15, help="of each load")
    parser.add_argument("--rounds", type=int, default=3, help="of full speed, of which the median is told")
    parser.add_argument("--idle-seconds", type=int, default=60)
    parser.add_argument("--read-seconds", type=int, default=60, help="of the long reader")
    parser.add_argument("--samples", type=int, default=60, help="of the lag")
    parser.add_argument("--transaction", type=int, default=1000, metavar="MB")
    parser.add_argument("--databases", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--snapshot", type=int, default=5000, metavar="MB")
    parser.add_argument("--line", type=float, default=50, metavar="MB/S", help="of the slow line")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100, 1000], help="to restore, to drill")
    parser.add_argument("--compact", type=int, default=100, metavar="MB", help="below the many small files")
    parser.add_argument("--files", type=int, default=100_000, help="that are compacted")
    args = parser.parse_args()
    Shipper.binary = args.binaries.resolve() / "shipper"
    for binary in ("shipper", "verifier"):
        size = (args.binaries / binary).stat().st_size
        print(f"{binary}: {size / 1e6:.1f} MB", flush=True)
    if not (ROOT / "target/debug/long-chain").exists() and {"drill", "compact"} & set(args.sections):
        raise SystemExit("long-chain is missing: cargo build -p seaworthy-tests --bins")
    (ROOT / "target").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as folder:
        place = Place(pathlib.Path(folder))
        try:
            for section in args.sections:
                measure(place, section, args)
        finally:
            place.server.process.kill()
            place.table()


if __name__ == "__main__":
    main()
