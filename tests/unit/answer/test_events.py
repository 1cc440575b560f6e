"""Events of an answer are numbered without a gap, timed, and end once."""

from __future__ import annotations

import json

import pytest

from codeintel_rev.answer import events
from codeintel_rev.answer.events import Cancelled, Citation, Event, Log, TextDelta, payload, text_of


def test_events_are_numbered_from_zero_and_timed() -> None:
    ticks = iter([10.0, 10.0, 10.25])
    log = Log(lambda: next(ticks))
    told = [log.add(TextDelta("a", 0)), log.add(TextDelta("b", 1))]
    assert [(event.seq, event.t_ms) for event in told] == [(0, 0.0), (1, 250.0)]


def test_nothing_follows_the_terminal_event() -> None:
    log = Log(lambda: 0.0)
    log.add(Cancelled("client", 0))
    with pytest.raises(ValueError, match=r"text.delta after answer.cancelled"):
        log.add(TextDelta("late", 0))


def test_the_json_names_type_and_seq_and_leaves_out_what_is_none() -> None:
    event = Event(4, 1.26, Citation(0, 2, 10, (0, 10), "exists"))
    assert json.loads(json.dumps(payload(event))) == {
        "type": "citation",
        "seq": 4,
        "t_ms": 1.3,
        "cid": 0,
        "n": 2,
        "offset": 10,
        "claim": [0, 10],
        "status": "exists",
    }


def test_the_text_is_what_the_deltas_make() -> None:
    log = Log(lambda: 0.0)
    log.add(TextDelta("one ", 0))
    log.add(Citation(0, 1, 4, (0, 4), "invalid"))
    log.add(TextDelta("two", 4))
    assert text_of(log.events) == "one two"


def test_every_event_has_a_type_of_its_own() -> None:
    kinds = [body.type for body in events.Body.__args__]
    assert len(set(kinds)) == len(kinds) == 13
