"""An app's story with boto3, from the five variables alone: up, list, down, delete; denied elsewhere.

usage: story.py OTHER_BUCKET OTHER_KEY
"""

import io
import os
import sys

import boto3
from botocore.exceptions import ClientError

other_bucket, other_key = sys.argv[1:]
bucket = os.environ["OF_S3_BUCKET"]
s3 = boto3.client(
    "s3",
    endpoint_url=os.environ["OF_S3_ENDPOINT"],
    aws_access_key_id=os.environ["OF_S3_ACCESS_KEY"],
    aws_secret_access_key=os.environ["OF_S3_SECRET_KEY"],
    region_name=os.environ["OF_S3_REGION"],
)


def keys():
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def denied(call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        assert code in ("AccessDenied", "403"), (call, code)
    else:
        raise AssertionError(f"{call} {arguments} was allowed")


s3.upload_file(__file__, bucket, "story.py")
# Large enough for a multipart upload (the client's threshold is 8 MiB).
large = os.urandom(9 * 1024 * 1024)
s3.upload_fileobj(io.BytesIO(large), bucket, "large")
assert keys() == ["large", "story.py"], keys()
with open(__file__, "rb") as file:
    assert s3.get_object(Bucket=bucket, Key="story.py")["Body"].read() == file.read()
assert s3.get_object(Bucket=bucket, Key="large")["Body"].read() == large
for key in keys():
    s3.delete_object(Bucket=bucket, Key=key)
assert keys() == []

denied(s3.list_objects_v2, Bucket=other_bucket)
denied(s3.get_object, Bucket=other_bucket, Key=other_key)
denied(s3.put_object, Bucket=other_bucket, Key="intruder", Body=b"x")
denied(s3.delete_object, Bucket=other_bucket, Key=other_key)
denied(s3.head_bucket, Bucket=other_bucket)
print("boto3: done")
