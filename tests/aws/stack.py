"""The deployment of template.yaml: checked, built and deployed with SAM, and what it tells."""

import json
import os
from pathlib import Path

from cloud import ADMIN
from place import REGION, ROOT, TOOLS, WORK, environment, run

NAME = "seaworthy"
PREFIX = "web-1"
FROM = "backups@acme.example"
TO = ["ops@acme.example", "owner@acme.example"]
STALE_AFTER_SECONDS = 60

PARAMETERS = {
    "ReplicaPrefix": PREFIX,
    "AlertFrom": FROM,
    "AlertTo": ",".join(TO),
    # The quickest that AWS knows.
    "DrillSchedule": "rate(1 minute)",
    "WatchSchedule": "rate(1 minute)",
    # Due at every compaction, which the test asks for itself.
    "SnapshotEvery": "1s",
    "StaleAfter": f"{STALE_AFTER_SECONDS}s",
    "MemorySize": "512",
    "EphemeralStorage": "512",
    "LogRetentionDays": "7",
}

# The production build (fat LTO, for size) takes minutes. This one differs in the optimizer's
# settings only: same compiler and linker, same target, same flags of cargo-lambda.
QUICK_BUILD = {
    "CARGO_PROFILE_RELEASE_LTO": "off",
    "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16",
    "CARGO_PROFILE_RELEASE_OPT_LEVEL": "1",
}


def sam_environment(**more):
    """The environment of `sam`, which finds cargo-lambda beside it."""
    return environment(**more) | {
        "PATH": f"{TOOLS}:{os.environ['PATH']}", "SAM_CLI_TELEMETRY": "0",
        "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}


def validate():
    """`sam validate --lint`."""
    return run("sam", [TOOLS / "sam", "validate", "--lint", "--template", ROOT / "template.yaml"],
               sam_environment(), 180).stdout.strip()


def build_environment():
    """The environment of cargo, which may still fetch a dependency: it keeps its own home, and the machine's CAs."""
    home = Path(os.environ.get("HOME", "/root"))
    machine = {name: value for name, value in os.environ.items()
               if not name.startswith("AWS_") and name not in ("HOME", "TMPDIR")}
    machine.setdefault("CARGO_HOME", str(home / ".cargo"))
    machine.setdefault("RUSTUP_HOME", str(home / ".rustup"))
    machine["CARGO_TARGET_DIR"] = str(ROOT / "target")
    return machine


def build():
    """`sam build`; the size of the function's binary in bytes."""
    # zig's compiled libc and cargo-lambda's linker script, kept for the next run.
    cache = {"XDG_CACHE_HOME": str(ROOT / "target" / "lambda-cache")}
    run("sam-build", [TOOLS / "sam", "build", "--template", ROOT / "template.yaml", "--build-dir", WORK / "build"],
        build_environment() | sam_environment() | cache | QUICK_BUILD, 1800)
    return (WORK / "build" / "Verifier" / "bootstrap").stat().st_size


def deploy(cloud):
    """`sam deploy` of what was built; the stack's outputs."""
    cloud.service("s3").create_bucket(
        Bucket="artifacts", CreateBucketConfiguration={"LocationConstraint": REGION})
    run("sam", [TOOLS / "sam", "deploy", "--template-file", WORK / "build" / "template.yaml", "--stack-name", NAME,
                "--s3-bucket", "artifacts", "--capabilities", "CAPABILITY_IAM", "--region", REGION,
                "--no-confirm-changeset", "--no-progressbar", "--parameter-overrides",
                *(f'{name}="{value}"' for name, value in PARAMETERS.items())],
        sam_environment(**ADMIN, **cloud.client()), 300)
    stack = cloud.service("cloudformation").describe_stacks(StackName=NAME)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def resources(cloud):
    """The deployed template's resources, after the SAM transform."""
    body = cloud.service("cloudformation").get_template(StackName=NAME, TemplateStage="Processed")["TemplateBody"]
    return (json.loads(body) if isinstance(body, str) else body)["Resources"]
