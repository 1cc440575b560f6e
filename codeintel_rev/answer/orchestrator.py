"""One question, from text to a checked answer: classify → retrieve → rerank → pack → extract → stream → verify.

Start reading here. Everything comes as events of one `Log`, the last of which is the only terminal one. As soon as
there are sources there is an answer, made of them alone; a model's text replaces it when a model is configured and in
time. Nothing behind the sources fails: what goes wrong there is a limit, and the status says what the answer became.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from codeintel_rev.answer.budgets import PROFILES, Profile, ProfileName, State
from codeintel_rev.answer.citations import is_stale, last_part, phantoms, unseen_names
from codeintel_rev.answer.confidence import Signals, abstains, confidence, signals
from codeintel_rev.answer.course import Cancel, Course, Stopped
from codeintel_rev.answer.events import (
    AnswerStatus,
    Cancelled,
    Citation,
    CitationChecked,
    CitationCounts,
    Completed,
    Created,
    Event,
    Extract,
    ExtractItem,
    Failed,
    Limited,
    Log,
    Sources,
    StageEvent,
    StageStatus,
)
from codeintel_rev.answer.extract import extract, told
from codeintel_rev.answer.library import Facts
from codeintel_rev.answer.pack import Pack, Passage, pack, sha256
from codeintel_rev.answer.parts import Parts, Score
from codeintel_rev.answer.rerank import blended
from codeintel_rev.answer.synthesis import Synthesis
from codeintel_rev.answer.transcript import Transcript
from codeintel_rev.config.settings import AnswerSettings
from codeintel_rev.errors import CodeIntelError, DeadlineExceeded, UpstreamFailed
from codeintel_rev.indexing.token_estimate import estimate_tokens
from codeintel_rev.retrieval.plan import make_plan
from codeintel_rev.types import Freshness, Hit, Limit, Scope, SearchResult, Stage

T = TypeVar("T")

CANDIDATES = 30
"""Hits asked of the search: those that are packed, and those a score may lift."""
_INNER_SHARE = 0.9  # Of a stage's time: a search answers with what it has within its own deadline.
_SLOW_MS = 1000.0
"""After a search that took longer nothing is reranked (requirement C31)."""
_RETRY_AFTER_MS = 1500
_MOST_NAMES = 5
_STATUS: dict[str, StageStatus] = {"ok": "ok", "late": "timeout", "failed": "error", "skipped": "skipped"}


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, where, and under which names; `profile` None leaves the effort to the settings."""

    text: str
    scope: Scope
    answer_id: str
    trace_id: str
    profile: ProfileName | None = None
    resumable: bool = False


async def answer(question: Question, parts: Parts, settings: AnswerSettings, cancel: Cancel) -> AsyncIterator[Event]:
    """Yield the events of an answer; the last one is terminal.

    Resolving `cancel` ends it with `answer.cancelled`; so does closing the iterator, without an event. Raises
    InvalidArgument, before the first event, for a question without a word.
    """
    query_class = make_plan(question.text, 1).query_class.value
    name = question.profile or settings.profile
    loop = asyncio.get_running_loop()
    course = Course(profile(name, settings), cancel, Log(loop.time))
    async with course.resources:
        yield course.tell(_created(question, course, name, query_class))
        try:
            async for event in _Answering(question, parts, settings, course).events():
                yield event
        except Stopped as stopped:
            course.to(State.CANCELLED)
            yield course.tell(Cancelled(stopped.by, len(course.text)))
        except CodeIntelError as error:
            course.to(State.FAILED)
            yield course.tell(_failed(error, question, course))


def _created(question: Question, course: Course, name: ProfileName, query_class: str) -> Created:
    deadline = course.profile.deadline_ms
    return Created(question.answer_id, question.trace_id, question.resumable, deadline, name, query_class)


def profile(name: ProfileName, settings: AnswerSettings) -> Profile:
    """Return the budgets of a profile under the deadline that the settings give it."""
    deadlines = {"fast": settings.fast_ms, "balanced": settings.balanced_ms, "deep": settings.deep_ms}
    return replace(PROFILES[name], deadline_ms=float(deadlines[name]))


class _NoRetrieval(DeadlineExceeded):
    slug, status, title = "retrieval-unavailable", 503, "Retrieval unavailable"


@dataclass(frozen=True, slots=True)
class _Answering:
    question: Question
    parts: Parts
    settings: AnswerSettings
    course: Course

    async def events(self) -> AsyncIterator[Event]:
        """Yield everything behind `answer.created`. Raises Stopped, and CodeIntelError while nothing was found."""
        course = self.course
        course.to(State.CLASSIFY)
        course.to(State.RETRIEVE)
        budget = self._retrieve_ms()
        yield course.tell(StageEvent("retrieve", "started", budget_ms=budget))
        result = await self._retrieved(budget)
        for event in self._searched(result):
            yield event
        yield course.tell(StageEvent("retrieve", "ok", round(course.log.elapsed_ms, 1), budget, len(result.hits)))
        course.to(State.FUSE)
        if not result.hits:
            for event in self._empty(result):
                yield event
            return
        course.to(State.HYDRATE)
        hits = result.hits
        if self.parts.score:
            course.to(State.RERANK)
            since = course.log.elapsed_ms
            reranked = await self._reranked(hits, self.parts.score)
            for event in self._ended("rerank", reranked, since):
                yield event
            hits = hits if isinstance(reranked, Limited) else reranked
        course.to(State.PACK)
        since = course.log.elapsed_ms
        facts = await self._facts(hits[: self.settings.max_sources], result.generations)
        for event in self._ended("hydrate", facts, since):
            yield event
        packed = self._packed(hits, {} if isinstance(facts, Limited) else facts)
        yield course.tell(Sources(tuple(passage.source for passage in packed.passages), result.generations))
        items = extract(self.question.text, packed.passages)
        yield course.tell(Extract(items))
        found = signals(self.question.text, result.hits, packed.passages)
        async for event in self._written(packed, items, found):
            yield event

    def _retrieve_ms(self) -> float:
        """Retrieval hurries for a model that waits; without one it has all the time there is."""
        profile = self.course.profile
        return self.course.within(profile.retrieve_ms if self.parts.chat else profile.deadline_ms)

    async def _retrieved(self, budget: float) -> SearchResult:
        search, question = self.parts.searcher.search, self.question
        try:
            return await self._run(
                lambda left: search(question.text, question.scope, CANDIDATES, deadline_ms=left), budget
            )
        except (TimeoutError, DeadlineExceeded) as error:
            detail = f"the search was not done within {budget:.0f} ms."
            raise _NoRetrieval(detail, "Ask again, narrow the scope or ask with a deeper profile.") from error

    def _searched(self, result: SearchResult) -> Iterator[Event]:
        """Yield what the search did. Raises when none of its channels answered."""
        for stage in result.stages:
            yield self.course.tell(StageEvent(stage.name, _STATUS[stage.status], round(stage.ms, 1), stage.budget_ms))
        for limit in result.limits:
            yield self.course.tell(_limited(limit, result.stages))
        channels = [stage for stage in result.stages if stage.name in result.channels]
        if not result.hits and channels and all(stage.status != "ok" for stage in channels):
            raise _NoRetrieval("no channel of the search answered in time.", "Ask again in a moment.")

    def _empty(self, result: SearchResult) -> Iterator[Event]:
        yield self.course.tell(Sources((), result.generations))
        yield self.course.tell(
            Limited("retrieval.empty", "retrieve", "Ask in other words or in a wider scope.", "Nothing was found.")
        )
        yield self._completed("empty", "empty", 0.0, CitationCounts())

    async def _facts(self, hits: Sequence[Hit], generations: Mapping[str, str]) -> Facts | Limited:
        """Return what is known of the hits' files, or why it is not."""
        files = tuple(dict.fromkeys((hit.repo, hit.path) for hit in hits))
        budget = self.course.within(self.course.profile.hydrate_ms)
        try:
            return await self._run(lambda _: self.parts.library.facts(files, generations), budget)
        except (TimeoutError, CodeIntelError) as error:
            return _degraded("hydrate", error, "Sources come without their definitions.", budget)

    async def _reranked(self, hits: tuple[Hit, ...], score: Score) -> tuple[Hit, ...] | Limited:
        """Return the hits in their new order, or why it is the old one."""
        profile, elapsed = self.course.profile, self.course.log.elapsed_ms
        budget = profile.rerank_ms
        if self.course.within(budget) < budget or elapsed > max(_SLOW_MS, profile.retrieve_ms):
            return Limited("rerank.skipped_budget", "rerank", "Hits keep their order.", "No time was left to rerank.")
        documents = [f"{hit.path}\n{hit.snippet}" for hit in hits]
        asked = score.score(self.question.text, documents, trace_id=self.question.trace_id)
        try:
            return blended(hits, await self.course.wait(asked, budget))
        except (TimeoutError, UpstreamFailed) as error:
            return _degraded("rerank", error, "Hits keep their order.", budget)

    def _packed(self, hits: Sequence[Hit], facts: Facts) -> Pack:
        return pack(
            hits,
            facts,
            count=estimate_tokens,
            budget=self.settings.context_tokens,
            max_sources=self.settings.max_sources,
            permalink=self.settings.permalink,
        )

    async def _written(self, packed: Pack, items: Sequence[ExtractItem], found: Signals) -> AsyncIterator[Event]:
        """Yield the text, by a model where there is one and enough was found, its checks and the end."""
        course = self.course
        status: AnswerStatus = "abstained" if abstains(found) else "extractive"
        ended, first_cid, written = str(status), 0, ""
        if self.parts.chat and status != "abstained":
            course.to(State.AWAIT_FIRST_TOKEN)
            synthesis = self._synthesis(packed.passages)
            async for event in synthesis.write(course, self.parts.chat):
                yield event
            if synthesis.ended or course.citations().supported:
                status = "complete" if synthesis.ended == "stop" else "partial"
                ended, written = synthesis.ended or "failed", course.text
        if not written:
            course.to(State.EXTRACT)
            first_cid = course.citations().total
            for body in told(items, packed, len(course.text), first_cid, clear=status != "abstained"):
                yield course.tell(body)
        course.to(State.VERIFY)
        async for event in self._verified(packed.passages, written, first_cid):
            yield event
        counts = course.citations(first_cid)
        yield self._completed(status, ended, confidence(found, counts if written else None), counts)

    def _synthesis(self, passages: Sequence[Passage]) -> Synthesis:
        question, nonce = self.question, secrets.token_hex(8)
        most = self.settings.max_tokens
        return Synthesis(
            question.text, passages, nonce, self.parts.model, most, question.trace_id, Transcript(passages)
        )

    async def _verified(self, passages: Sequence[Passage], written: str, first_cid: int) -> AsyncIterator[Event]:
        """Yield the citations whose lines are gone from the work tree, and a limit for names that nothing has."""
        since, budget = self.course.log.elapsed_ms, self.course.within(self.course.profile.verify_ms)
        cited = [one for one in self.course.log.of(Citation) if one.status == "exists" and one.cid >= first_cid]
        names = unseen_names(written, passages)
        outcome = await self._checked(passages, cited, names, budget)
        for event in self._ended("verify", outcome, since):
            yield event
        if isinstance(outcome, Limited):
            return
        stale, unknown = outcome
        for citation in stale:
            yield self.course.tell(CitationChecked(citation.cid, "stale", 0.0))
        if unknown:
            shown = ", ".join(unknown[:_MOST_NAMES])
            action = "Do not rely on these names; search for them."
            detail = f"Named in the answer, but in no source and not defined here: {shown}."
            yield self.course.tell(Limited("synthesis.unknown_names", "verify", action, detail))

    async def _checked(
        self, passages: Sequence[Passage], cited: Sequence[Citation], names: Sequence[str], budget: float
    ) -> tuple[list[Citation], tuple[str, ...]] | Limited:
        try:
            return await self._run(lambda _: self._checks(passages, cited, names), budget)
        except (TimeoutError, CodeIntelError) as error:
            return _degraded("verify", error, "Citations were not compared with the work tree.", budget)

    def _checks(
        self, passages: Sequence[Passage], cited: Sequence[Citation], names: Sequence[str]
    ) -> tuple[list[Citation], tuple[str, ...]]:
        """Return the citations that are stale and the names nothing has. Reads files, so it runs in a thread."""
        library = self.parts.library
        edited = {p.source.n: p for p in passages if p.freshness is not Freshness.FRESH}
        standing = {
            n: library.standing(edited[n].source.repo, edited[n].source.path)
            for n in {one.n for one in cited} & edited.keys()
        }
        stale = [one for one in cited if one.n in standing and is_stale(edited[one.n], one.lines, standing[one.n])]
        repos = {passage.source.repo for passage in passages}
        known = library.known_names(repos, {last_part(name) for name in names}) if names else set()
        return stale, phantoms(names, known)

    async def _run(self, work: Callable[[float], T], budget_ms: float) -> T:
        """Return `work(milliseconds left)`, run in a thread. Raises TimeoutError, Stopped, and what it raises."""
        return await self.course.wait(self.parts.run(work, _INNER_SHARE * budget_ms), budget_ms)

    def _ended(self, stage: str, outcome: object, since_ms: float) -> Iterator[Event]:
        """Yield how a stage ended that began at `since_ms`: well, or why it did not."""
        ms = round(self.course.log.elapsed_ms - since_ms, 1)
        if not isinstance(outcome, Limited):
            yield self.course.tell(StageEvent(stage, "ok", ms))
            return
        kind = outcome.code.rpartition(".")[2]
        status: StageStatus = "timeout" if kind == "timeout" else "skipped" if kind == "skipped_budget" else "error"
        yield self.course.tell(StageEvent(stage, status, ms, outcome.budget_ms))
        yield self.course.tell(outcome)

    def _completed(self, status: AnswerStatus, ended: str, sure: float, counts: CitationCounts) -> Event:
        self.course.to(State.COMPLETED)
        limits = tuple(self.course.limits)
        return self.course.tell(Completed(status, ended, sure, limits, sha256(self.course.text), counts))


def _degraded(stage: str, error: Exception, action: str, budget_ms: float) -> Limited:
    if isinstance(error, TimeoutError | DeadlineExceeded):
        detail = f"{stage} was not done within {budget_ms:.0f} ms."
        return Limited(f"{stage}.timeout", stage, action, detail, budget_ms)
    detail = error.detail if isinstance(error, CodeIntelError) else ""
    code = error.code if isinstance(error, UpstreamFailed) and error.code else f"{stage}.failed"
    return Limited(code, stage, action, detail, budget_ms)


def _limited(limit: Limit, stages: Sequence[Stage]) -> Limited:
    """Return the live twin of a search's limit, timed where it is a stage's."""
    timed = next((stage for stage in stages if stage.name == limit.stage), None)
    if timed is None:
        return Limited(limit.code, limit.stage, limit.action, limit.detail)
    return Limited(limit.code, limit.stage, limit.action, limit.detail, timed.budget_ms, round(timed.ms, 1))


def _failed(error: CodeIntelError, question: Question, course: Course) -> Failed:
    code = "retrieval.all_timeout" if isinstance(error, _NoRetrieval) else f"retrieval.{error.slug}"
    return Failed(
        slug=error.slug,
        title=error.title,
        status=error.status,
        detail=error.detail,
        action=error.hint,
        code=code,
        stage="retrieve",
        retryable=error.retryable,
        trace_id=question.trace_id,
        limits=tuple(course.limits),
        retry_after_ms=_RETRY_AFTER_MS if error.retryable else None,
    )
