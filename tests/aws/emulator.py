"""Starts the AWS emulator, with what it lacks for evaluating our policies as they are deployed.

- The policies rest on `s3:if-none-match`, `s3:ObjectCreationOperation` and `ses:FromAddress`. The
  emulator evaluates conditions, but never sets these keys, so that it would deny every upload
  and every mail.
- It serves either with TLS or without. AWS does both, and the bucket policy has to tell them apart.
- S3 says that an object does not exist only to those who may list the bucket; others get a 403.
  The emulator says 404 to everybody.

All of it is added here as AWS documents it. Nothing else is changed but how often the emulator
looks for a schedule that is due.
"""

import os
from urllib.parse import parse_qs, unquote

from hypercorn.config import Config
from ministack import app
from ministack.core import iam_actions
from ministack.services import s3, scheduler


def first(query, name):
    """The first value of a query parameter; the emulator has them as lists."""
    value = query.get(name)
    return value[0] if isinstance(value, list) else value


def object_creation_keys(query, headers):
    """What S3 says of a request that needs `s3:PutObject`.

    An upload's start and its parts create no object; a plain PUT and a completion do.
    """
    starts = "uploads" in query
    part = "partNumber" in query
    keys = {"s3:ObjectCreationOperation": "false" if starts or part else "true"}
    lower = {name.lower(): value for name, value in headers.items()}
    for name in ("if-none-match", "if-match"):
        if name in lower:
            keys[f"s3:{name}"] = lower[name]
    return keys


def form(body, query):
    """The parameters of a request in the query protocol, from its body or its address."""
    fields = parse_qs(body.decode()) if body else {}
    return {name: values[0] for name, values in fields.items()} | {
        name: first(query or {}, name) for name in (query or {})
    }


def object_is_missing(method, path):
    """Whether this reads an object that is not there."""
    bucket, _, key = unquote(path).lstrip("/").partition("/")
    if method not in ("GET", "HEAD") or not key or bucket not in s3._buckets:
        return False
    return key not in s3._buckets[bucket]["objects"]


def complete_the_evaluation():
    """Wraps the functions that describe a request to the policy evaluation."""
    s3_context = iam_actions.s3_service_context
    s3_checks = iam_actions.s3_additional_checks
    tag_context = iam_actions.request_tag_context
    resource_arn = iam_actions.extract_resource_arn

    def s3_service_context(action, query, path="", headers=None):
        context = s3_context(action, query, path, headers)
        if action == "s3:PutObject":
            context = context | object_creation_keys(query or {}, headers or {})
        return context

    def s3_additional_checks(method, path, headers, body, query):
        checks = s3_checks(method, path, headers, body, query)
        if object_is_missing(method, path):
            bucket = path.lstrip("/").partition("/")[0]
            checks = [*checks, ("s3:ListBucket", f"arn:aws:s3:::{bucket}")]
        return checks

    def request_tag_context(service, action, body, query):
        context = dict(tag_context(service, action, body, query))
        if action == "ses:SendEmail":
            context["ses:FromAddress"] = form(body, query).get("Source", "")
        return context

    def extract_resource_arn(service, method, path, headers, body, query, region, account):
        if service == "ses" and path == "/":
            source = form(body, query).get("Source")
            if source:
                return f"arn:aws:ses:{region}:{account}:identity/{source}"
        return resource_arn(service, method, path, headers, body, query, region, account)

    iam_actions.s3_service_context = s3_service_context
    iam_actions.s3_additional_checks = s3_additional_checks
    iam_actions.request_tag_context = request_tag_context
    iam_actions.extract_resource_arn = extract_resource_arn


if __name__ == "__main__":
    complete_the_evaluation()
    Config._insecure_bind = [f"127.0.0.1:{os.environ['PLAIN_PORT']}"]
    scheduler._SCHEDULE_TICK_INTERVAL = 1
    # With TLS it would listen on 443 as well, where it may.
    app._port_is_bindable = lambda *_: False
    app.main()
