"""How fast and how exact is the embedded encoder, against the same model on torch, and what do token vectors cost?

Speeds are chunks of 128 tokens per second. The three variants take turns in one process, so the ratios hold on a noisy
machine; one thread is measured in CPU time, all threads in wall time. Ours tokenises within its time, torch is given
the tokens.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from codeintel_rev.config.settings import EmbeddingSettings
from codeintel_rev.encoders import minilm, minilm_tokens
from codeintel_rev.types import Floats

Runs = Mapping[str, Callable[[], Floats]]
Clock = Callable[[], float]

CHUNKS, ROUNDS, QUERIES, BATCH = 32, 5, 200, 8
DTYPES = (torch.float32, torch.bfloat16)
QUERY = "where is a failed request retried with exponential backoff?"
COLD_OPEN = """
import sys, time
from pathlib import Path
start = time.perf_counter()
from codeintel_rev.config.settings import EmbeddingSettings
from codeintel_rev.encoders.dense import open_encoder
encoder = open_encoder(EmbeddingSettings(threads=1), Path(sys.argv[1]))
encoder.encode_queries(["first"])
cold = time.perf_counter() - start
encoder.encode_documents(["value = other_value + 1\\n" * 40] * 64)
resident = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
print(f"{cold * 1000:.0f} ms, {int(resident.split()[1]) / 1024:.0f} MB")
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        minilm.open_encoder(EmbeddingSettings(), Path(folder))
        print(f"first open, which makes the model: {time.perf_counter() - start:.2f} s")
        command = [sys.executable, "-c", COLD_OPEN, folder]
        cold = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        print(f"cold open to first query, resident memory after 64 chunks: {cold}")
        _compare(Path(folder))


def _compare(models_dir: Path) -> None:
    one, every = (minilm.open_encoder(EmbeddingSettings(threads=threads), models_dir) for threads in (1, 0))
    texts = _texts()
    on_torch = {str(dtype): partial(_torch_vectors, _torch_model(dtype), _token_ids(texts)) for dtype in DTYPES}
    runs = on_torch | {"ours": partial(one.encode_documents, texts)}
    _print_speeds("one thread", runs, time.process_time, 1)
    threads = os.cpu_count() or 1
    runs_on_every = on_torch | {"ours": partial(every.encode_documents, texts)}
    _print_speeds(f"{threads} threads", runs_on_every, time.perf_counter, threads)
    _print_cosines(runs)
    _print_token_speed(one, texts)
    times = [_seconds(partial(one.encode_queries, [QUERY]), time.perf_counter) * 1000 for _ in range(QUERIES)]
    print(f"query: p50 {statistics.median(times):.2f} ms, p95 {np.percentile(times, 95):.2f} ms")


def _texts() -> list[str]:
    """Return pieces of this project's source, each longer than 128 tokens."""
    source = "\n".join(path.read_text() for path in sorted(Path(minilm.__file__).parents[1].rglob("*.py")))
    return [source[start : start + 1000] for start in range(0, CHUNKS * 1000, 1000)]


def _token_ids(texts: list[str]) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(minilm.package_folder() / "model")
    ids: torch.Tensor = tokenizer(texts, truncation=True, max_length=128, return_tensors="pt")["input_ids"]
    return ids


def _torch_model(dtype: torch.dtype) -> torch.nn.Module:
    model: torch.nn.Module = AutoModel.from_pretrained(minilm.package_folder() / "model", dtype=dtype).eval()
    return model


def _torch_vectors(model: torch.nn.Module, ids: torch.Tensor) -> Floats:
    with torch.inference_mode():
        batches = (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))
        means = [model(input_ids=batch).last_hidden_state.float().mean(dim=1) for batch in batches]
    rows: Floats = torch.nn.functional.normalize(torch.cat(means)).numpy()
    return rows


def _print_speeds(label: str, runs: Runs, clock: Clock, threads: int) -> None:
    torch.set_num_threads(threads)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            seconds[name].append(_seconds(run, clock))
    speed = {name: CHUNKS / statistics.median(times) for name, times in seconds.items()}
    for name in runs:
        print(f"{label}, {name}: {speed[name]:.0f} chunks/s")
    print(f"{label}, ours / torch.bfloat16: {speed['ours'] / speed['torch.bfloat16']:.2f}")


def _print_token_speed(dense: minilm.MiniLM, texts: list[str]) -> None:
    """Print what the token vectors of the same windows cost on top of the dense ones, in CPU time."""
    encoder = minilm_tokens.MiniLMTokens(dense, minilm_tokens.fitted_projection(dense, texts))
    ends = (document.offsets[125, 1] for document in encoder.encode_documents(texts))
    windows = [text[:end] for text, end in zip(texts, ends, strict=True)]
    runs = {
        "dense": partial(dense.encode_documents, windows),
        "tokens": lambda: list(encoder.encode_documents(windows)),
    }
    seconds = {name: [_seconds(run, time.process_time) for _ in range(ROUNDS)] for name, run in runs.items()}
    dense_s, tokens_s = (statistics.median(seconds[name]) for name in runs)
    print(f"one thread, dense and token vectors in one run: {CHUNKS / tokens_s:.0f} chunks/s")
    print(f"one thread, dense and tokens / dense alone: {dense_s / tokens_s:.2f}")


def _print_cosines(runs: Runs) -> None:
    vectors = {name: run() for name, run in runs.items()}
    for name in ("torch.bfloat16", "ours"):
        cosines = (vectors[name] * vectors["torch.float32"]).sum(axis=1)
        print(f"cosine to float32, {name}: mean {cosines.mean():.4f}, least {cosines.min():.4f}")


def _seconds(run: Callable[[], object], clock: Clock) -> float:
    start = clock()
    run()
    return clock() - start
