"""Server-sent events from bytes that arrive cut anywhere (WHATWG HTML, 9.2.6)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from codeintel_rev.io.vllm.endpoint import EndpointName
from codeintel_rev.io.vllm.refusals import failure

MAX_EVENT = 256 * 1024
"""Bytes of one event. A delta of vLLM is 300 bytes; 64 Ki tokens of usage details still fit."""
_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventReader:
    """Keeps what is not yet a whole line. Comments and fields other than `data` are nothing to us."""

    def __init__(self, name: EndpointName) -> None:
        self._name: EndpointName = name
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Yield the data of every event that `chunk` ends.

        What is left when the bytes end was cut off and is no event. Raises UpstreamMalformed for an event larger than
        MAX_EVENT and for data that is not UTF-8.
        """
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        self._after_cr = self._after_cr or chunk.endswith(b"\r")
        *ended, rest = _LINE_END.split(chunk)
        for part in ended:
            self._take(part)
            line, self._line = bytes(self._line), bytearray()
            if line:
                self._field(line)
            elif self._data:
                yield self._event()
        self._take(rest)

    def _take(self, part: bytes) -> None:
        self._line += part
        self._size += len(part)
        if self._size > MAX_EVENT:
            raise failure(self._name, "malformed", f"sent an event of more than {MAX_EVENT} bytes")

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        elif not self._data:
            self._size = 0

    def _event(self) -> str:
        data, self._data, self._size = b"\n".join(self._data), [], 0
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise failure(self._name, "malformed", "sent text that is not UTF-8") from error
