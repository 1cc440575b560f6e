"""What a request may ask otherwise than the settings, and what is in effect then."""

from __future__ import annotations

import pytest

from codeintel_rev.config.settings import XTRSettings
from codeintel_rev.retrieval.options import AS_SET, Late, Options, late, planned
from codeintel_rev.retrieval.plan import make_plan
from codeintel_rev.types import LateMode

ON = XTRSettings(enable=True)  # type: ignore[call-arg]
OFF = XTRSettings()  # type: ignore[call-arg]
PLAN = make_plan("what refuses an entry", 10)


def test_the_settings_decide_when_nothing_is_asked() -> None:
    """A02, A22: off by default; on, it rescores."""
    assert not late(AS_SET, OFF).takes_part
    assert late(AS_SET, ON) == Late(wide=False, head=200, blend="rrf", score_norm="minmax", weight=1.0)


def test_a_request_wins_over_the_settings() -> None:
    """A43."""
    told = XTRSettings(enable=True, mode="wide", candidate_k=7, blend="sum", score_norm="z")
    asked = Options(mode="rescore", xtr_k=3, blend="replace", score_norm="none", stage_weights={"xtr_rescore": 0.5})
    assert late(AS_SET, told) == Late(wide=True, head=0, blend="sum", score_norm="z", weight=1.0)
    assert late(asked, told) == Late(wide=False, head=3, blend="replace", score_norm="none", weight=0.5)
    assert late(Options(mode="both"), OFF).takes_part


@pytest.mark.parametrize(
    ("mode", "wide", "rescores"),
    [("off", False, False), ("rescore", False, True), ("wide", True, False), ("both", True, True)],
)
def test_a_mode_is_a_channel_or_a_stage_or_both(mode: LateMode, wide: bool, rescores: bool) -> None:
    asked = late(Options(mode=mode), ON)
    assert (asked.wide, asked.head > 0) == (wide, rescores)


def test_no_weight_rescores_nothing() -> None:
    assert late(Options(stage_weights={"xtr_rescore": 0.0}), ON).head == 0


def test_a_channel_of_tokens_is_only_asked_where_it_is_wide() -> None:
    assert "xtr" not in planned(PLAN, AS_SET, late(AS_SET, ON)).weights
    wide = Options(mode="wide")
    assert planned(PLAN, wide, late(wide, ON)).weights["xtr"] == PLAN.weights["dense"]


def test_weights_and_channels_of_a_request_go_before_the_plan() -> None:
    """A43: only these channels; one that the plan would not ask counts 1."""
    asked = Options(channels=("symbols", "xtr", "lexical"), stage_weights={"lexical": 4.0, "dense": 9.0})
    weights = planned(PLAN, asked, late(asked, OFF)).weights
    assert weights == {"symbols": 1.0, "xtr": PLAN.weights["xtr"], "lexical": 4.0}
