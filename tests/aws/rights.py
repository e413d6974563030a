"""What each key of the template may do, tried one request at a time.

Only requests that leave nothing behind but objects of the database `rights`, which is removed.
"""

from botocore.exceptions import ClientError

GENERATION = "rights/018f0000-0000-7000-8000-000000000000"
FIRST, SECOND, THIRD = (f"{txid:016x}-{txid:016x}.ltx" for txid in (1, 2, 3))
LTX = f"{GENERATION}/0000/{SECOND}"
SNAPSHOT = f"{GENERATION}/0009/{FIRST}"

# What the server's key could change the past with, if it could put it: compactions, snapshots of a later state, and the levels
# of a replica that Litestream wrote.
NOT_THE_SHIPPERS = [
    *(f"{GENERATION}/{level}/{name}" for level in ("0001", "0002", "0003", "0004", "0008")
      for name in (SECOND, "0000000000000002-000000000000003f.ltx")),
    f"{GENERATION}/0009/0000000000000001-0000000000000004.ltx",
    f"{GENERATION}/0009/{SECOND}",
    f"{GENERATION}/{SECOND}",
    f"rights/0000/{SECOND}",
    f"rights/0000/{FIRST}",
    f"rights/0009/{FIRST}",
    f"rights/ltx/0/{SECOND}",
    f"0000/{SECOND}",
    "rights/generations/0123456789abcdef/snapshots/00000000.snapshot.lz4",
]


def answer(call, **arguments):
    """`ok`, or how a request was refused."""
    try:
        call(**arguments)
        return "ok"
    except ClientError as error:
        return refusal(error)


def refusal(error):
    """The status and the code."""
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return "403" if status == 403 else f"{status} {error.response['Error']['Code']}"


def multipart(s3, bucket, key, **condition):
    """An upload in parts; how its beginning went, if refused, else its completion. Aborted when refused."""
    try:
        upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    except ClientError as error:
        return refusal(error)
    part = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"part")
    outcome = answer(
        s3.complete_multipart_upload, Bucket=bucket, Key=key, UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}, **condition)
    if outcome != "ok":
        s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
    return outcome


def try_all(cloud, outputs, prefix, keys):
    """Tries every right; yields (who does what, expected, seen)."""
    bucket, table = outputs["BucketName"], outputs["TableName"]
    ship, restore, verify = (cloud.service("s3", keys[name]) for name in ("ship", "restore", "verify"))
    ltx, other = f"{prefix}/{LTX}", f"elsewhere/{LTX}"
    heartbeat, receipt = f"{prefix}/rights/heartbeat.json", f"{prefix}/rights/receipt.json"

    def put(s3, key, **condition):
        return answer(s3.put_object, Bucket=bucket, Key=key, Body=b"{}", **condition)

    def s3(call, **arguments):
        return answer(call, Bucket=bucket, **arguments)

    yield "ship puts an LTX object without the condition", "403", put(ship, ltx)
    yield "ship puts it once", "ok", put(ship, ltx, IfNoneMatch="*")
    yield "ship puts it again", "412 PreconditionFailed", put(ship, ltx, IfNoneMatch="*")
    yield "ship overwrites it", "403", put(ship, ltx)
    yield "ship overwrites it if it is the one it knows", "403", put(
        ship, ltx, IfMatch=ship.head_object(Bucket=bucket, Key=ltx)["ETag"])
    yield "ship overwrites it in parts", "403", multipart(ship, bucket, ltx)
    yield "ship puts it again in parts", "412 PreconditionFailed", multipart(ship, bucket, ltx, IfNoneMatch="*")
    yield "ship puts another in parts", "ok", multipart(
        ship, bucket, f"{prefix}/{GENERATION}/0000/{THIRD}", IfNoneMatch="*")
    snapshot = f"{prefix}/{SNAPSHOT}"
    yield "ship puts the first snapshot without the condition", "403", put(ship, snapshot)
    yield "ship puts the first snapshot in parts", "ok", multipart(ship, bucket, snapshot, IfNoneMatch="*")
    yield "ship puts the first snapshot again", "412 PreconditionFailed", put(ship, snapshot, IfNoneMatch="*")
    yield "ship overwrites the first snapshot", "403", put(ship, snapshot)
    # Allowed, since a policy cannot tell: readers ignore a level-0 file of more than one TXID.
    yield "ship puts a range at level 0", "ok", put(
        ship, f"{prefix}/{GENERATION}/0000/0000000000000002-0000000000000028.ltx", IfNoneMatch="*")
    for key in NOT_THE_SHIPPERS:
        yield f"ship puts {key}", "403", put(ship, f"{prefix}/{key}", IfNoneMatch="*")
        yield f"ship puts {key} in parts", "403", multipart(ship, bucket, f"{prefix}/{key}", IfNoneMatch="*")
    yield "ship copies over it", "403", s3(
        ship.copy_object, Key=ltx, CopySource={"Bucket": bucket, "Key": ltx}, MetadataDirective="REPLACE")
    yield "ship deletes it", "403", s3(ship.delete_object, Key=ltx)
    yield "ship deletes it with others", "403", s3(ship.delete_objects, Delete={"Objects": [{"Key": ltx}]})
    yield "ship lists", "403", s3(ship.list_objects_v2, Prefix=f"{prefix}/")
    yield "ship reads it", "ok", s3(ship.get_object, Key=ltx)
    yield "ship reads what is not there", "403", s3(ship.head_object, Key=f"{prefix}/rights/nothing")
    yield "ship writes the heartbeat", "ok", put(ship, heartbeat)
    yield "ship overwrites the heartbeat", "ok", put(ship, heartbeat)
    yield "ship forges a receipt", "403", put(ship, receipt)
    yield "ship loosens the drill", "403", put(ship, f"{prefix}/rights/drill.toml")
    yield "ship writes elsewhere", "403", put(ship, other, IfNoneMatch="*")
    yield "ship reads elsewhere", "403", s3(ship.get_object, Key=other)
    yield "ship opens the bucket", "403", s3(ship.put_bucket_policy, Policy="{}")

    yield "restore lists", "ok", s3(restore.list_objects_v2, Prefix=f"{prefix}/")
    yield "restore reads", "ok", s3(restore.get_object, Key=ltx)
    yield "restore learns what is not there", "404 NoSuchKey", s3(restore.get_object, Key=f"{prefix}/rights/nothing")
    yield "restore writes", "403", put(restore, f"{prefix}/rights/x.ltx", IfNoneMatch="*")
    yield "restore deletes", "403", s3(restore.delete_object, Key=ltx)

    yield "verify writes the receipt", "ok", put(verify, receipt)
    yield "verify writes an LTX object elsewhere", "403", put(verify, f"{prefix}/rights/y.ltx", IfNoneMatch="*")
    yield "verify ships", "403", put(verify, f"{ltx[:-4]}1.ltx", IfNoneMatch="*")
    for level in ("0001", "0002", "0003", "0009"):
        compaction = ltx.replace("/0000/", f"/{level}/")
        yield f"verify compacts to {level} without the condition", "403", put(verify, compaction)
        yield f"verify compacts to {level}", "ok", put(verify, compaction, IfNoneMatch="*")
        yield f"verify compacts to {level} again", "412 PreconditionFailed", put(verify, compaction, IfNoneMatch="*")
        yield f"verify overwrites it in {level}", "403", put(verify, compaction)
        yield f"verify compacts to {level} in parts", "ok", multipart(
            verify, bucket, f"{compaction[:-4]}0.ltx", IfNoneMatch="*")
        yield f"verify overwrites it in {level} in parts", "403", multipart(verify, bucket, compaction)
        yield f"verify deletes it from {level}", "403", s3(verify.delete_object, Key=compaction)
    yield "verify compacts to a level that is none", "403", put(
        verify, ltx.replace("/0000/", "/0004/"), IfNoneMatch="*")
    yield "verify compacts elsewhere", "403", put(verify, other.replace("/0000/", "/0001/"), IfNoneMatch="*")
    yield "verify forges a heartbeat", "403", put(verify, heartbeat)
    yield "verify deletes", "403", s3(verify.delete_object, Key=ltx)
    mail = {"Destination": {"ToAddresses": ["ops@acme.example"]},
            "Message": {"Subject": {"Data": "rights"}, "Body": {"Text": {"Data": "rights"}}}}
    yield "verify mails as somebody else", "403", answer(
        cloud.service("ses", keys["verify"]).send_email, Source="ceo@acme.example", **mail)
    ledger = cloud.service("dynamodb", keys["verify"])
    record = {"pk": {"S": "DB#rights"}, "sk": {"S": "STATE"}}
    yield "verify writes the ledger", "ok", answer(ledger.put_item, TableName=table, Item=record)
    yield "verify deletes from the ledger", "403", answer(ledger.delete_item, TableName=table, Key=record)
    yield "ship reads the ledger", "403", answer(
        cloud.service("dynamodb", keys["ship"]).get_item, TableName=table, Key=record)

    plain = cloud.service("s3", keys["restore"], cloud.plain_url)
    yield "restore reads without TLS", "403", s3(plain.get_object, Key=ltx)

    clean(cloud, bucket, table, prefix, record)


def clean(cloud, bucket, table, prefix, record):
    """Removes what the tries left, with the account's own key."""
    admin = cloud.service("s3")
    for item in admin.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/rights/").get("Contents", []):
        admin.delete_object(Bucket=bucket, Key=item["Key"])
    cloud.service("dynamodb").delete_item(TableName=table, Key=record)
