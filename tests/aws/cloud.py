"""The AWS account of the test: an emulator with TLS that evaluates every policy."""

import datetime
import ipaddress
import json
import os
import socket
import ssl
import sys
import urllib.request
from pathlib import Path

import boto3
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from place import PATIENCE, REGION, WORK, Process, environment, wait_for

ADMIN = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


def make_certificate(directory):
    """A certificate of our own for 127.0.0.1, since the bucket refuses requests without TLS."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "seaworthy test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .sign(key, hashes.SHA256()))
    paths = directory / "server.crt", directory / "server.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return paths


def free_ports():
    """Two ports that nobody listens on."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


class Cloud:
    """The running emulator."""

    def __init__(self):
        self.certificate, key = make_certificate(WORK)
        port, plain_port = free_ports()
        self.url, self.plain_url = f"https://127.0.0.1:{port}", f"http://127.0.0.1:{plain_port}"
        self.trust = ssl.create_default_context(cafile=str(self.certificate))
        self.emulator = Process(
            "emulator", [sys.executable, "-u", Path(__file__).with_name("emulator.py")],
            environment(**ADMIN, **self.client(), GATEWAY_PORT=str(port), PLAIN_PORT=str(plain_port), BIND_HOST="127.0.0.1", AUTH="true",
                        USE_SSL="1", MINISTACK_SSL_CERT=str(self.certificate), MINISTACK_SSL_KEY=str(key),
                        MINISTACK_REGION=REGION, STATE_DIR=str(WORK / "emulator"),
                        S3_DATA_DIR=str(WORK / "emulator" / "s3"), SFTP_ENABLED="0", IOT_MTLS_ENABLED="0"))

    def client(self):
        """What a program needs in its environment to talk to this account instead of AWS."""
        return {"AWS_ENDPOINT_URL": self.url, "SSL_CERT_FILE": str(self.certificate),
                "AWS_CA_BUNDLE": str(self.certificate)}

    def get(self, path):
        """A page of the emulator's own, as JSON."""
        with urllib.request.urlopen(self.url + path, context=self.trust, timeout=PATIENCE) as answer:
            return json.load(answer)

    def ready(self):
        """Waits until the emulator answers; whether it evaluates policies."""
        def look():
            try:
                return self.get("/_ministack/health")
            except OSError:
                return None
        return wait_for("the emulator's health", look, alive=[self.emulator])

    def service(self, name, key=ADMIN, url=None):
        """A client of one service, with the account's own key or another."""
        return boto3.client(
            name, endpoint_url=url or self.url, verify=str(self.certificate), region_name=REGION,
            aws_access_key_id=key["AWS_ACCESS_KEY_ID"], aws_secret_access_key=key["AWS_SECRET_ACCESS_KEY"],
            config=Config(retries={"max_attempts": 1}, read_timeout=PATIENCE, proxies={},
                          s3={"addressing_style": "path"}, request_checksum_calculation="when_required"))

    def user(self, name, policies):
        """A new user with these policies and nothing else; its key."""
        iam = self.service("iam")
        iam.create_user(UserName=name)
        for policy in policies:
            iam.attach_user_policy(UserName=name, PolicyArn=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    def mails(self):
        """The mails that SES has sent so far, oldest first."""
        return [mail for account in self.get("/_ministack/ses/messages")["messages"].values() for mail in account]

    def close(self):
        """Ends the emulator and the functions that it runs."""
        self.emulator.kill()


def forget_machine():
    """Takes the machine's own AWS set-up and proxies out of this process."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy") or name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
