"""The programs that are compared: `shipper` and `litestream`, each for any number of databases."""

import pathlib
import re
import subprocess

from machine import TOOLS, costs, environment, stop


class Shipper:
    """`shipper run`."""

    label = "shipper"
    binary = None

    def __init__(self, directory, server, prefix, databases, endpoint=None):
        self.server, self.prefix = server, prefix
        self.log = directory / f"{prefix}.log"
        config = directory / f"{prefix}.toml"
        text = (f'state_dir = "{directory}/state-{prefix}"\n[replica]\n'
                f'url = "s3://backups/{prefix}"\n'
                f'endpoint = "{endpoint or server.endpoint}"\nregion = "us-east-1"\n')
        for name, path in databases.items():
            text += f'[[database]]\npath = "{path}"\nname = "{name}"\n'
        config.write_text(text)
        self.start([self.binary, "run", "--config", config])

    def start(self, command):
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, env=environment(), stdout=log, stderr=log)

    def costs(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.label} has ended: {self.log.read_text()[-2000:]}")
        return costs(self.process.pid)

    def files(self, name, level="0000"):
        """The files of one level of one database that are in the bucket."""
        return list((self.server.data / self.prefix / name).glob(f"*/{level}/*.ltx"))

    def has_snapshot(self, name):
        return bool(self.files(name, "0009"))

    def stop(self):
        stop(self.process)

    def locks(self):
        """How often the write lock was held, and the longest time, as the log says at the end."""
        told = re.findall(r"write locks held.*?taken=(\d+).*?longest=(\S+)", self.log.read_text())
        return f"{told[-1][0]}, longest {told[-1][1]}" if told else "?"


class Litestream(Shipper):
    """`litestream replicate`, as it comes."""

    label = "litestream"

    def __init__(self, directory, server, prefix, databases, endpoint=None):
        self.server, self.prefix = server, prefix
        self.log = directory / f"{prefix}.log"
        config = directory / f"{prefix}.yml"
        text = "dbs:\n"
        for name, path in databases.items():
            text += (f"  - path: {path}\n    replica:\n      type: s3\n      bucket: backups\n"
                     f"      path: {prefix}/{name}\n      region: us-east-1\n"
                     f"      endpoint: {endpoint or server.endpoint}\n"
                     "      force-path-style: true\n")
        config.write_text(text)
        self.start([TOOLS / "litestream", "replicate", "-config", config])

    def files(self, name, level="0000"):
        return list((self.server.data / self.prefix / name / level).glob("*.ltx"))

    def has_snapshot(self, name):
        # Its first file of level 0 holds the whole database.
        return bool(self.files(name))

    def locks(self):
        return "not told"


def newest(paths):
    """The TXID that the newest of some files ends with."""
    return max((pathlib.Path(path).stem.split("-")[1] for path in paths), default="")
