"""`codeintel status` and `codeintel doctor`: what is there, and what is missing for what."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import distributions

from codeintel_rev.app.context import Open
from codeintel_rev.app.opening import open_index
from codeintel_rev.cli import render
from codeintel_rev.config.settings import Settings, load_settings
from codeintel_rev.errors import CodeIntelError, IndexCorrupt
from codeintel_rev.eval.tune import OperatingPoint, read_point
from codeintel_rev.io.registry import repository_directory
from codeintel_rev.mcp_server.envelope import RepoStatus, repo_status


class Unwell(CodeIntelError):
    """The doctor found something."""


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    ok: bool
    told: str


def status(*, as_json: bool, open_index: Open = open_index) -> None:
    """Print one line a repository."""
    settings = load_settings()
    searcher = open_index(settings).searcher
    try:
        shards = [repo_status(shard) for shard in searcher.status()]
    finally:
        searcher.close()
    points = {shard.repo: _point(settings, shard.repo) for shard in shards}
    if as_json:
        render.print_json([{**shard.payload(), **_tuned(points[shard.repo])} for shard in shards])
        return
    render.print_table(("repo", "state", "commit", "counts", "vectors", "building"), [_row(shard) for shard in shards])
    for shard in shards:
        render.print_limits(shard.limits)
        if point := points[shard.repo]:
            render.out.print(_operating_point(shard, point, settings))


def _point(settings: Settings, repo: str) -> OperatingPoint | None:
    """Return what was tuned. That a note cannot be read is told, and keeps nothing else from being told."""
    try:
        return read_point(repository_directory(settings.paths.data_dir, repo))
    except IndexCorrupt as error:
        render.err.print(str(error))
        return None


def _tuned(point: OperatingPoint | None) -> dict[str, object]:
    return {"operating_point": asdict(point)} if point else {}


def _operating_point(shard: RepoStatus, point: OperatingPoint, settings: Settings) -> str:
    one = point.chosen
    since = "" if point.generation == shard.generation else f" of generation {point.generation}"
    return (
        f"{shard.repo}: {one.candidates} candidates were enough for {point.questions} questions{since}"
        f" (ndcg@{point.k} {one.ndcg:.3f}, p50 {one.p50_ms:.1f} ms); {settings.retrieval.candidates} are in use."
    )


def doctor(*, as_json: bool) -> None:
    """Print the effective settings and each check; raise Unwell when one fails."""
    settings = load_settings()
    findings = list(_findings(settings))
    if as_json:
        checks = [{"check": one.check, "ok": one.ok, "told": one.told} for one in findings]
        render.print_json({"settings": settings.model_dump(mode="json"), "checks": checks})
    else:
        render.out.print(json.dumps(settings.model_dump(mode="json"), indent=2))
        render.print_table(("check", "", ""), [(one.check, "ok" if one.ok else "FAILED", one.told) for one in findings])
    if failed := [one.check for one in findings if not one.ok]:
        raise Unwell(f"{len(failed)} checks failed: {', '.join(failed)}.", "Each says what to do.")


def _findings(settings: Settings) -> Iterator[Finding]:
    """Yield the outcome of each check."""
    data_dir = settings.paths.data_dir
    nearest = next(folder for folder in (data_dir.absolute(), *data_dir.absolute().parents) if folder.exists())
    writable = nearest.is_dir() and os.access(nearest, os.W_OK)
    yield Finding("data folder", writable, str(data_dir) if writable else "set CODEINTEL_PATHS__DATA_DIR")
    faiss = sorted({name for each in distributions() if (name := each.name.lower()).startswith("faiss")})
    yield Finding("one FAISS", len(faiss) == 1, ", ".join(faiss) or "pip install faiss-cpu")
    yield Finding("encoder", *_encoder(settings))
    yield Finding("port", *_port(settings))


def _encoder(settings: Settings) -> tuple[bool, str]:
    provider, served = settings.embedding.provider, settings.vllm.embed
    if provider == "huggingface":
        return bool(settings.embedding.model), settings.embedding.model or "set CODEINTEL_EMBEDDING__MODEL"
    if provider == "vllm":
        return bool(served.url and served.model), served.model or "set CODEINTEL_VLLM__EMBED__URL and __MODEL"
    return True, provider


def _port(settings: Settings) -> tuple[bool, str]:
    server = settings.server
    with socket.socket(socket.AF_INET6 if ":" in server.host else socket.AF_INET) as probe:
        taken = probe.connect_ex((server.host, server.port)) == 0
    address = f"{server.host}:{server.port}"
    return not taken, f"{address} is free" if not taken else f"{address} is in use; set CODEINTEL_SERVER__PORT"


def _row(shard: RepoStatus) -> tuple[object, ...]:
    building = f"compaction due: {shard.compaction_due}" if shard.compaction_due else ""
    if shard.building:
        building = f"{shard.building.stage} {shard.building.done}/{shard.building.total}"
    counts = ", ".join(f"{count} {name}" for name, count in shard.counts.items())
    return shard.repo, shard.state, shard.commit[:12], counts, f"{shard.vector_coverage:.0%}", building
