"""The steps, in the order of e2e.py. Each asserts what must hold, and says what it saw."""

import json
import time

import drills
import rights
import server
import stack
from cloud import Cloud
from place import WORK, run, wait_for


class Story:
    """What the steps know from each other."""

    def __init__(self):
        self.cloud = self.outputs = self.keys = self.server = self.drills = None

    # --- deployment ------------------------------------------------------------------------

    def build_the_programs(self):
        """The binaries that an operator installs, as the workspace's tests have them."""
        run("cargo", ["cargo", "build", "--quiet", "--package", "shipper", "--package", "verifier"],
            stack.build_environment(), 1200)
        return f"{server.SHIPPER.stat().st_size / 1e6:.1f} MB"

    def validate_the_template(self):
        said = stack.validate()
        assert "is a valid SAM Template" in said, said
        return said.rsplit("/", 1)[-1]

    def build_the_function(self):
        return f"bootstrap of {stack.build() / 1e6:.1f} MB"

    def start_the_emulator(self):
        self.cloud = Cloud()
        health = self.cloud.ready()
        assert health["auth"] == "enabled", "policies are not evaluated"
        return f"{self.cloud.url}, version {health['version']}, policies evaluated"

    def deploy_the_stack(self):
        self.cloud.service("ses").verify_email_identity(EmailAddress=stack.FROM)
        self.outputs = stack.deploy(self.cloud)
        return ", ".join(f"{name} {value}" for name, value in sorted(self.outputs.items()))

    def look_at_the_deployment(self):
        """What an auditor would ask of the bucket, the table, the function and the alarms."""
        s3, bucket = self.cloud.service("s3"), self.outputs["BucketName"]
        access = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
        assert len(access) == 4 and all(access.values()), access
        ledger = self.cloud.service("dynamodb").describe_table(TableName=self.outputs["TableName"])["Table"]
        assert ledger["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST", ledger
        function = self.cloud.service("lambda").get_function_configuration(FunctionName=self.outputs["FunctionName"])
        assert (function["Runtime"], function["Timeout"]) == ("provided.al2023", 900), function
        log = self.cloud.service("logs").describe_log_groups(logGroupNamePrefix=self.outputs["LogGroupName"])
        assert log["logGroups"][0]["retentionInDays"] == 7, log
        schedule = self.cloud.service("scheduler")
        for task, rate, asked in (
                ("drill", "rate(1 minute)", {"task": "drill"}), ("watch", "rate(1 minute)", {"task": "watch"}),
                ("drill-oldest", "rate(7 days)", {"task": "drill", "at": "oldest"}),
                ("drill-random", "rate(7 days)", {"task": "drill", "at": "random"}),
                ("compact", "rate(3 hours)", {"task": "compact"})):
            found = schedule.get_schedule(Name=f"{stack.NAME}-{task}")
            assert (found["State"], found["ScheduleExpression"]) == ("ENABLED", rate), found
            assert json.loads(found["Target"]["Input"]) == asked, found
        alarms = self.cloud.service("cloudwatch").describe_alarms()["MetricAlarms"]
        assert sorted(alarm["AlarmName"] for alarm in alarms) == [
            f"{stack.NAME}-verifier-error", f"{stack.NAME}-verifier-silent"], alarms
        # What the emulator does not carry out, as CloudFormation was given it.
        resources = stack.resources(self.cloud)
        bucket, table = resources["ReplicaBucket"]["Properties"], resources["LedgerTable"]["Properties"]
        rule = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"][0]
        assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256", rule
        assert bucket["LifecycleConfiguration"]["Rules"][0]["AbortIncompleteMultipartUpload"], bucket
        assert table["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}, table
        assert table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] is True, table
        kept = [name for name, resource in resources.items() if resource.get("DeletionPolicy") == "Retain"]
        assert sorted(kept) == ["LedgerTable", "ReplicaBucket"], kept
        return "private, encrypted, uploads expire; on demand, TTL, point-in-time recovery; log kept 7 days; 2 alarms"

    def try_every_right(self):
        self.keys = {
            "ship": self.cloud.user("ship", [self.outputs["ShipPolicyArn"]]),
            "restore": self.cloud.user("restore", [self.outputs["RestorePolicyArn"]]),
            "verify": self.cloud.user("verify", [self.outputs["VerifyPolicyArn"]]),
        }
        tried = list(rights.try_all(self.cloud, self.outputs, stack.PREFIX, self.keys))
        wrong = [f"{what}: {seen}, not {expected}" for what, expected, seen in tried if seen != expected]
        assert not wrong, "; ".join(wrong)
        return f"{len(tried)} requests of the keys ship, restore and verify, each allowed or refused as it should be"

    # --- the copy and its proof ------------------------------------------------------------

    def ship_while_a_writer_commits(self):
        self.server = server.Server(self.cloud, self.outputs, self.keys)
        self.drills = drills.Drills(self.cloud, self.outputs)
        self.server.start_writer()
        self.server.start_shipper()
        both = (self.server.writer, self.server.shipper)
        snapshot = wait_for("a snapshot", self.drills.snapshot, alive=both)
        assert "-" in snapshot["ETag"], f"the snapshot was not uploaded in parts: {snapshot}"
        files = wait_for("ten files after it", lambda: len(self.drills.changes()) >= 10, alive=both)
        assert files
        heartbeat = self.drills.document("heartbeat.json")
        assert heartbeat["txid"], heartbeat
        return (f"snapshot of {snapshot['Size'] / 1e6:.1f} MB in parts, {len(self.drills.changes())} files, "
                f"{self.server.orders()} orders so far, heartbeat at TXID {heartbeat['txid']}")

    def drill_on_demand(self):
        self.known = self.drills.recorded()
        self.first = self.drills.run()
        drills.expect(self.first, "PASS")
        assert 0 < self.first["tables"]["orders"] <= self.server.orders(), self.first["tables"]
        assert self.first["tables"]["customers"] == 100, self.first["tables"]
        receipt = self.drills.document("receipt.json")
        # By now the schedule may have drilled, too.
        records = [drills.document_of(item) for item in self.drills.items()]
        proven = {record["txid"] for record in records if record["verdict"] == "PASS"}
        assert receipt["txid"] in proven, (receipt, proven)
        return (f"PASS at TXID {self.first['txid']}, tables {self.first['tables']}, "
                f"restored {self.first['restore']['bytes'] / 1e6:.1f} MB in {self.first['restore']['seconds']:.2f} s")

    def read_the_record_back(self):
        item = self.drills.record(self.first["started_at"])
        kept = drills.document_of(item)
        assert kept == self.first, f"ledger: {kept}\nanswer: {self.first}"
        assert int(item["expires_at"]["N"]) > time.time(), item
        return f"{item['pk']['S']} {item['sk']['S']} equals the answer, kept until {item['expires_at']['N']}"

    def be_drilled_by_the_schedule(self):
        """A record that nobody here asked for."""
        asked = self.known | {self.drills.record(self.first["started_at"])["sk"]["S"]}
        new = wait_for("a drill by the schedule", lambda: self.drills.recorded() - asked,
                       alive=(self.server.writer, self.server.shipper))
        item = self.drills.by_key(sorted(new)[0])
        drills.expect(drills.document_of(item), "PASS")
        return f"{item['sk']['S']}: PASS"

    def restore_with_the_restore_key(self):
        output = WORK / "server" / "restored.db"
        url = f"{self.outputs['ReplicaUrl']}/{server.DATABASE}"
        before = self.drills.document("receipt.json")
        self.server.restore(url, "restore", output)
        restored = server.rows(output, "orders")
        assert self.first["tables"]["orders"] <= restored <= self.server.orders(), restored
        assert self.server.points(url, "restore")["points"], "no restore points"
        return f"{restored} orders, as new as the drill before it (TXID {before['txid']}) or newer"

    def be_refused_with_the_ship_key(self):
        output = WORK / "server" / "refused.db"
        done = self.server.restore(f"{self.outputs['ReplicaUrl']}/{server.DATABASE}", "ship", output, expect=1)
        assert "HINT:" in done.stderr and "restore policy" in done.stderr.split("HINT:", 1)[1], done.stderr
        assert not list(output.parent.glob("refused*")), "something was left behind"
        return done.stderr.strip().splitlines()[-1]

    # --- damage ----------------------------------------------------------------------------

    def break_an_object(self):
        """One bit of one object, with the account's own key: no key of ours could."""
        self.broken = self.drills.changes()[3]["Key"]
        self.whole = self.drills.flip(self.broken)
        self.failed = self.drills.run()
        drills.expect(self.failed, "FAIL")
        fault = next(check for check in self.failed["checks"] if check["status"] == "fail")
        assert self.broken.rsplit("/", 1)[-1] in fault["detail"], fault
        return f"FAIL, {fault['name']}: {fault['detail']}"

    def read_the_failure_mail(self):
        name = self.broken.rsplit("/", 1)[-1]
        mail = wait_for("the failure mail", lambda: self.drills.mail("FAIL", name))
        assert mail["Source"] == stack.FROM and mail["To"] == stack.TO, mail
        return f"from {mail['Source']} to {', '.join(mail['To'])}: {mail['Subject']}"

    def mend_the_object(self):
        self.drills.put_back(self.broken, self.whole)
        answer = self.drills.run()
        drills.expect(answer, "PASS")
        return f"PASS at TXID {answer['txid']}"

    # --- compaction ------------------------------------------------------------------------

    def compact_on_demand(self):
        """Beside the shipper, with the function's own rights."""
        wait_for("a whole window of files", lambda: len(self.drills.changes()) > 66,
                 alive=(self.server.writer, self.server.shipper))
        shipped = {item["Key"]: item["ETag"] for item in self.drills.changes()}
        report = self.drills.compact()
        assert report["levels"]["1"]["files_out"] >= 1, report
        assert report["snapshot"]["state"] == "promoted", report
        assert report["restore_objects_after"] < report["restore_objects_before"], report
        now = {item["Key"]: item["ETag"] for item in self.drills.objects()}
        assert all(now.get(key) == tag for key, tag in shipped.items()), "something that was shipped has changed"
        assert any("/0009/" in key and key.endswith(f"-{report['snapshot']['txid']}.ltx") for key in now), sorted(now)
        answer = self.drills.run()
        drills.expect(answer, "PASS")
        assert answer["restore"]["objects"] < len(shipped), answer["restore"]
        return (f"{report['levels']['1']['files_in']} files into {report['levels']['1']['files_out']}, a snapshot of "
                f"{report['snapshot']['bytes'] / 1e6:.1f} MB; the next restore read {answer['restore']['objects']} objects")

    def drill_the_same_from_the_command_line(self):
        """At one TXID, by the function and by the program with the same rights elsewhere: one record."""
        policies = [self.outputs["RestorePolicyArn"], self.outputs["VerifyPolicyArn"]]
        key = self.cloud.user("operator", policies)
        txid = self.drills.changes()[-5]["Key"].rsplit("-", 1)[-1].removesuffix(".ltx")
        function = self.drills.run(at=txid)
        program = self.server.drill(self.outputs, key, txid)
        drills.expect(function, "PASS")
        one, other = drills.timeless(function), drills.timeless(program)
        differing = {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}
        assert not differing, {name: (one.get(name), other.get(name)) for name in differing}
        assert drills.document_of(self.drills.record(program["started_at"])) == program, "another record in the ledger"
        return f"{function['verdict']} at TXID {txid}, {len(one['checks'])} checks, equal but for times"

    # --- silence ---------------------------------------------------------------------------

    def stop_the_shipper(self):
        self.committed = self.server.orders()
        self.server.stop_shipper()
        self.stopped_at = time.time()
        return f"exit 0 after the final sync, heartbeat at TXID {self.drills.document('heartbeat.json')['txid']}"

    def read_the_staleness_mail(self):
        """Sent by the scheduled watch: nobody here asks for it."""
        mail = wait_for("the staleness mail", lambda: self.drills.mail("app: dead", since=self.stopped_at))
        waited = mail["Timestamp"] - self.stopped_at
        assert mail["Source"] == stack.FROM and mail["To"] == stack.TO, mail
        return f"{waited:.0f} s later: {mail['Subject']}"

    def compare_with_the_source(self):
        """All that was committed before the stop is what the bucket gives back, and nothing else."""
        output = WORK / "server" / "last.db"
        shipped = self.server.restore(f"{self.outputs['ReplicaUrl']}/{server.DATABASE}", "restore", output)
        assert shipped.returncode == 0
        restored, source = server.rows(output, "orders"), self.server.orders()
        assert self.committed <= restored <= source, (self.committed, restored, source)
        assert server.dump(output) == server.dump(self.server.path, restored), "the restored copy differs from the source"
        return f"{restored} orders ({self.committed} before the stop), each and every other row equal to the source"

    def come_back(self):
        """The application went on without the shipper: what it wrote meanwhile has to be in the next copy."""
        missed = self.server.orders()
        self.returned_at = time.time()
        self.server.start_shipper()
        both = (self.server.writer, self.server.shipper)
        heartbeat = wait_for("what was missed", lambda: self.drills.synced_after(self.returned_at), alive=both)
        answer = self.drills.run()
        drills.expect(answer, "PASS")
        assert answer["generation"] == heartbeat["generation"], (answer, heartbeat)
        assert answer["tables"]["orders"] >= missed, (answer["tables"], missed)
        return f"PASS at TXID {answer['txid']} with {answer['tables']['orders']} orders"

    def read_the_recovery_mail(self):
        mail = wait_for("the recovery mail", lambda: self.drills.mail("app: recovered", since=self.returned_at))
        return f"{mail['Timestamp'] - self.returned_at:.0f} s later: {mail['Subject']}"

    def ring_the_error_alarm(self):
        """An event that the function must refuse, seen by the alarm on its errors."""
        error = self.drills.refuse({"task": "nonsense"})
        wait_for("the alarm", lambda: self.drills.alarm(f"{stack.NAME}-verifier-error") == "ALARM")
        return f"{error}; {stack.NAME}-verifier-error is in ALARM"

    def close(self):
        """Ends everything that still runs."""
        for part in (self.server, self.cloud):
            if part:
                part.close()
