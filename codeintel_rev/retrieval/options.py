"""What one query may ask otherwise than the settings, and what is in effect then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from codeintel_rev.config.settings import XTRSettings
from codeintel_rev.retrieval.plan import Plan
from codeintel_rev.types import Blend, LateMode, ScoreNorm

WIDE, RESCORE = "xtr", "xtr_rescore"
"""The names of late interaction as a channel, and as the stage that rescores."""


@dataclass(frozen=True, slots=True)
class Options:
    """None and empty leave a choice to the settings and the plan.

    `xtr_k` is settings' `candidate_k`; `stage_weights` go before the plan's, by channel, and `xtr_rescore` is that of
    rescoring; with `channels` only these are asked, and `xtr` among them is asked whatever the mode.
    """

    mode: LateMode | None = None
    xtr_k: int | None = None
    blend: Blend | None = None
    score_norm: ScoreNorm | None = None
    stage_weights: Mapping[str, float] = field(default_factory=dict)
    channels: tuple[str, ...] = ()


AS_SET = Options()


@dataclass(frozen=True, slots=True)
class Late:
    """Late interaction in one query: whether it is a channel, and how many fused chunks it rescores, the `head`."""

    wide: bool
    head: int
    blend: Blend
    score_norm: ScoreNorm
    weight: float

    @property
    def takes_part(self) -> bool:
        return self.wide or self.head > 0


def late(options: Options, settings: XTRSettings) -> Late:
    """Return what `options` and `settings` add up to; a weight of zero rescores nothing."""
    mode = options.mode or (settings.mode if settings.on else "off")
    weight = options.stage_weights.get(RESCORE, 1.0)
    rescores = mode in ("rescore", "both") and weight > 0
    return Late(
        wide=mode in ("wide", "both") or WIDE in options.channels,
        head=(options.xtr_k or settings.candidate_k) if rescores else 0,
        blend=options.blend or settings.blend,
        score_norm=options.score_norm or settings.score_norm,
        weight=weight,
    )


def planned(plan: Plan, options: Options, asked: Late) -> Plan:
    """Return `plan` with the weights in effect: those of `options`, and none for a channel that is not to be asked.

    A channel that is named and has no weight in the plan counts 1.
    """
    weights = {**dict.fromkeys(options.channels, 1.0), **plan.weights, **options.stage_weights}
    chosen = options.channels or weights
    kept = {name: weight for name, weight in weights.items() if name in chosen and (name != WIDE or asked.wide)}
    return replace(plan, weights=kept)
