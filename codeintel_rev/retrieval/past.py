"""Which kept generation answers a question about the past: one that is named, or the one of a time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from codeintel_rev.errors import GenerationGone, InvalidArgument
from codeintel_rev.io.generation_reader import GenerationReader
from codeintel_rev.io.manifest import Manifest
from codeintel_rev.types import Limit, Scope

_AGO = re.compile(r"(\d{1,9})(s|m|h|d|w)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_TOLD = 8  # Generations that an error names.


@dataclass(frozen=True, slots=True)
class Past:
    """The generation of each repository that answers, none when the newest ones do, and who is left out."""

    generations: Mapping[str, str]
    limits: tuple[Limit, ...] = ()


NOW = Past({})


def past_of(scope: Scope, stores: Mapping[str, GenerationReader], now: datetime) -> Past:
    """Return what `scope` asks of `stores`, the repositories in scope by name.

    A time means the last generation that was published by then and not rolled back since. Raises InvalidArgument for
    a time that is none, or when a generation is named as well, GenerationGone, which tells what is kept, when the
    generation is not, or none of that time.
    """
    if scope.generation and scope.as_of:
        raise InvalidArgument("generation and as_of were both given.", "Give one of them.")
    if scope.generation:
        return Past(_holding(scope.generation, stores))
    return _at(moment(scope.as_of, now), bool(scope.repos), stores) if scope.as_of else NOW


def moment(text: str, now: datetime) -> datetime:
    """Return the time that `text` is: ISO 8601, UTC where it says no zone, or `90s`, `5m`, `2h`, `3d`, `1w` before
    `now`. Raises InvalidArgument."""
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument("as_of is no time.", "Give ISO 8601, or how long ago: 90s, 5m, 2h, 3d, 1w.") from error


def older(manifest: Manifest) -> Limit:
    """Return what says that an answer is from the past."""
    detail = f"{manifest.repo} answers from generation {manifest.generation} of {manifest.created_at}, not the newest."
    return Limit("past-generation", "generation", detail, "Ask without generation and as_of for what is now.")


def _holding(generation: str, stores: Mapping[str, GenerationReader]) -> dict[str, str]:
    kept = {repo: store.ls() for repo, store in stores.items()}
    holding = {repo: generation for repo, found in kept.items() if generation in (one.generation for one in found)}
    if not holding:
        raise _gone(f"generation {generation[:26]} is not kept.", kept)
    return holding


def _at(time: datetime, named: bool, stores: Mapping[str, GenerationReader]) -> Past:
    kept = {repo: store.ls() for repo, store in stores.items()}
    found = {repo: _last(kept[repo], store.current_id(), time) for repo, store in stores.items()}
    chosen = {repo: generation for repo, generation in found.items() if generation}
    missing = {repo: kept[repo] for repo in found.keys() - chosen.keys()}
    if missing and (named or not chosen):
        raise _gone(f"{', '.join(sorted(missing)[:_TOLD])} keeps nothing of {time.isoformat()}.", missing)
    return Past(chosen, tuple(_left_out(repo, time) for repo in sorted(missing)))


def _last(kept: Sequence[Manifest], newest: str | None, time: datetime) -> str:
    return next((one.generation for one in kept if one.generation <= (newest or "") and _published(one) <= time), "")


def _published(manifest: Manifest) -> datetime:
    return datetime.fromisoformat(manifest.created_at)


def _left_out(repo: str, time: datetime) -> Limit:
    return Limit("generation-gone", "generation", f"{repo} keeps nothing of {time.isoformat()}.", "`indexctl ls`.")


def _gone(what: str, kept: Mapping[str, Sequence[Manifest]]) -> GenerationGone:
    told = [f"{one.generation} ({repo}, {one.created_at})" for repo, found in sorted(kept.items()) for one in found]
    more = " and others, see `indexctl ls`" if len(told) > _TOLD else ""
    return GenerationGone(what, f"Kept are {', '.join(told[:_TOLD])}{more}." if told else "Nothing is kept.")
