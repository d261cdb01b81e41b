"""A valid Idempotency-Key is made unique: another request under a key that was used is refused, as it must be (422)."""

import re
import uuid

import schemathesis


@schemathesis.hook
def map_headers(context, headers):
    for name, value in (headers or {}).items():
        if name.lower() == "idempotency-key" and re.fullmatch("[!-~]{1,128}", str(value)):
            headers[name] = uuid.uuid4().hex
    return headers
