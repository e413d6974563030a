"""The verifier as its operator sees it: answers, records, mails, and the objects it judges."""

import json
from datetime import datetime

from server import DATABASE
from stack import PREFIX


class Drills:
    """One database's replica and its ledger, with the account's own key."""

    def __init__(self, cloud, outputs):
        self.cloud = cloud
        self.bucket, self.table = outputs["BucketName"], outputs["TableName"]
        self.function = outputs["FunctionName"]
        self.s3, self.ledger = cloud.service("s3"), cloud.service("dynamodb")
        self.runtime, self.metrics = cloud.service("lambda"), cloud.service("cloudwatch")

    # --- the function ----------------------------------------------------------------------

    def invoke(self, event):
        """The function's answer to an event, and its error if it failed."""
        answer = self.runtime.invoke(FunctionName=self.function, Payload=json.dumps(event).encode())
        return json.loads(answer["Payload"].read()), answer.get("FunctionError")

    def run(self, at="latest"):
        """Drills the database; the record."""
        answer, error = self.invoke({"task": "drill", "database": DATABASE, "at": at})
        assert not error, answer
        return answer[0] if isinstance(answer, list) else answer

    def compact(self):
        """Compacts the database; its report."""
        answer, error = self.invoke({"task": "compact", "database": DATABASE})
        assert not error, answer
        assert answer["verdict"] == "PASS", json.dumps(answer, indent=1)
        return answer["databases"][0]

    def refuse(self, event):
        """What the function says to an event that it must not accept."""
        answer, error = self.invoke(event)
        assert error, f"accepted: {answer}"
        return answer["errorMessage"]

    def alarm(self, name):
        """State of an alarm. The emulator evaluates alarms only when somebody sends it a metric."""
        self.metrics.put_metric_data(Namespace="test", MetricData=[{"MetricName": "look", "Value": 1}])
        return self.metrics.describe_alarms(AlarmNames=[name])["MetricAlarms"][0]["StateValue"]

    # --- the ledger ------------------------------------------------------------------------

    def items(self):
        """The database's drill records, oldest first."""
        return self.ledger.query(
            TableName=self.table, KeyConditionExpression="pk = :pk AND begins_with(sk, :sk)", ConsistentRead=True,
            ExpressionAttributeValues={":pk": {"S": f"DB#s3://{self.bucket}/{PREFIX}/{DATABASE}"}, ":sk": {"S": "DRILL#"}})["Items"]

    def recorded(self):
        """Their sort keys."""
        return {item["sk"]["S"] for item in self.items()}

    def by_key(self, key):
        """One of them."""
        return next(item for item in self.items() if item["sk"]["S"] == key)

    def record(self, started_at):
        """The one that began at this time."""
        found = [item for item in self.items() if document_of(item)["started_at"] == started_at]
        assert len(found) == 1, f"{len(found)} records of a drill that began at {started_at}"
        return found[0]

    # --- the objects -----------------------------------------------------------------------

    def objects(self):
        """Every LTX object of the database, by key."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{PREFIX}/{DATABASE}/")
        found = (item for page in pages for item in page.get("Contents", []))
        return sorted((item for item in found if item["Key"].endswith(".ltx")), key=lambda item: item["Key"])

    def snapshot(self):
        """The newest file that begins at TXID 1."""
        found = [item for item in self.objects() if "/0000000000000001-" in item["Key"]]
        return found[-1] if found else None

    def changes(self):
        """The files of level 0 after the first TXID."""
        return [item for item in self.objects() if "/0000/" in item["Key"] and "/0000000000000001-" not in item["Key"]]

    def document(self, name):
        """One of the JSON objects beside the generations."""
        return json.load(self.s3.get_object(Bucket=self.bucket, Key=f"{PREFIX}/{DATABASE}/{name}")["Body"])

    def synced_after(self, seconds):
        """The heartbeat, if all that was committed until some moment after `seconds` (since the epoch) is in the bucket."""
        heartbeat = self.document("heartbeat.json")
        synced = heartbeat["synced_at"] and datetime.fromisoformat(heartbeat["synced_at"].replace("Z", "+00:00"))
        return heartbeat if synced and synced.timestamp() > seconds else None

    def flip(self, key):
        """Flips one bit in the middle of an object; the object as it was."""
        whole = self.s3.get_object(Bucket=self.bucket, Key=key)
        body = bytearray(whole["Body"].read())
        kept = bytes(body), whole["Metadata"]
        body[len(body) // 2] ^= 0x10
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=bytes(body), Metadata=whole["Metadata"])
        return kept

    def put_back(self, key, kept):
        """Puts an object back as it was."""
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=kept[0], Metadata=kept[1])

    # --- the mails -------------------------------------------------------------------------

    def mail(self, *words, since=0.0):
        """The first mail since then with all of these words in it, whatever their case."""
        for mail in self.cloud.mails():
            text = "\n".join(mail[part] or "" for part in ("Subject", "BodyText", "BodyHtml")).lower()
            if mail["Timestamp"] >= since and all(word.lower() in text for word in words):
                return mail
        return None


def document_of(item):
    """The record in an item of the ledger, as the verifier answers it."""
    return json.loads(item["document"]["S"])


def timeless(record):
    """A record without what two drills of the same state may differ in: when, and how long it took."""
    kept = {name: value for name, value in record.items() if name not in ("started_at", "finished_at", "steps")}
    kept["restore"] = {name: value for name, value in record["restore"].items() if name != "seconds"}
    kept["checks"] = [check for check in record["checks"] if not check["name"].startswith("budget")]
    return kept


def expect(record, verdict):
    """Fails with the checks of a record whose verdict is another."""
    assert record["verdict"] == verdict, json.dumps(record, indent=1)
