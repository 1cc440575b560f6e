"""The rows of an answer that gives one for each text."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np

from codeintel_rev.io.vllm.endpoint import EndpointName
from codeintel_rev.io.vllm.http import Reply
from codeintel_rev.io.vllm.refusals import failure, parsed_object
from codeintel_rev.types import Floats


def indexed_rows(name: EndpointName, reply: Reply, count: int) -> list[dict[str, Any]]:
    """Return the `count` objects of `data` in the order of their `index`. Raises UpstreamMalformed."""
    return in_order(name, parsed_object(name, reply.body).get("data"), count)


def in_order(name: EndpointName, data: object, count: int) -> list[dict[str, Any]]:
    """Return `data`, which must be `count` objects with each index once, in their order. Raises UpstreamMalformed."""
    rows = [row for row in data if isinstance(row, dict)] if isinstance(data, list) else []
    by_index = {row["index"]: row for row in rows if type(row.get("index")) is int}
    if not isinstance(data, list) or len(data) != count or by_index.keys() != set(range(count)):
        raise failure(name, "malformed", f"did not give {count} rows, each index once")
    return [by_index[position] for position in range(count)]


def decoded(name: EndpointName, text: str, dtype: str) -> Floats:
    """Return the numbers of base64 `text` as (n,) float32. Raises UpstreamMalformed."""
    try:
        return floats(name, base64.b64decode(text, validate=True), dtype)
    except binascii.Error as error:
        raise failure(name, "malformed", "gave a vector that is no base64") from error


def floats(name: EndpointName, data: bytes, dtype: str) -> Floats:
    """Return the numbers of `data` as (n,) float32, finite or not. Raises UpstreamMalformed."""
    if len(data) % np.dtype(dtype).itemsize:
        raise failure(name, "malformed", "gave a vector that ends within a number")
    return np.frombuffer(data, dtype).astype(np.float32)
