"""A run for people: rows for a terminal, and one HTML page that needs nothing else. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from codeintel_rev.eval.run import Answer, Comparison

MOST_MISSED = 50
_BAR_WIDTH, _BAR_HEIGHT, _LABEL_WIDTH = 320, 22, 190

_STYLE = """
:root { color-scheme: light dark; --bar: #3b6fb6; --track: #8883 }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% } td, th { padding: .25rem .6rem .25rem 0; text-align: left;
 border-bottom: 1px solid var(--track); vertical-align: top } td { overflow-wrap: anywhere }
.figures { display: flex; flex-wrap: wrap; gap: 1.5rem } .figures b { display: block; font-size: 1.6rem }
svg text { font: 13px system-ui, sans-serif; fill: currentColor } svg { max-width: 100%; height: auto }
.track { fill: var(--track) } .bar { fill: var(--bar) } p.loss { font-weight: bold; color: #c33 }
"""


def columns(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the columns of `rows`."""
    return ("questions", "", *metrics["figures"])


def rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the figures of all questions, of their files only, and of each class."""
    yield str(metrics["questions"]), "all", *_figures(metrics["figures"])
    yield str(metrics["questions"]), "all, each file once", *_figures(metrics["figures_by_file"])
    for name, by_value in metrics["classes"].items():
        for value, figures in by_value.items():
            yield str(figures["questions"]), f"{name}={value}", *_figures(figures)


def remarks(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line on time, on what the channels gave and, where it was measured, on the vector index."""
    times = metrics["search_ms"]
    yield f"search p50 {times['p50']:.1f} ms, p95 {times['p95']:.1f} ms, without encoding the question"
    for name, one in metrics["found_by"].items():
        share, alone = one["share"], one["alone"]
        yield f"{name} had {share:.0%} of the right hits in its own first {metrics['k']}, {alone:.0%} alone"
    if "index" in metrics:
        one = metrics["index"]
        yield f"index recall@{one['k']} {one['recall']:.4f} of {one['vectors']} vectors, p50 {one['p50_ms']:.2f} ms"


def compared(comparison: Comparison, k: int) -> str:
    """Return the sentence that says what became of an earlier run's questions."""
    found = comparison.ndcg
    return (
        f"ndcg@{k} {found.mean:+.4f} against the baseline over {comparison.shared} shared questions, 95 % between"
        f" {found.low:+.4f} and {found.high:+.4f}; {len(comparison.worse)} got worse."
    )


def page(metrics: Mapping[str, Any], answers: Sequence[Answer], comparison: Comparison | None) -> str:
    """Return the HTML page of a run: figures, a bar for each class, what the channels gave, and what was missed."""
    return "\n".join(
        (
            "<!doctype html>",
            f'<html lang="en"><meta charset="utf-8"><title>Evaluation of {escape(metrics["repo"])}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{_STYLE}</style>",
            f"<h1>Evaluation of {escape(metrics['repo'])}</h1>",
            f"<p>{metrics['questions']} questions, generation {escape(', '.join(metrics['generations']))}.</p>",
            _headline(metrics),
            *_comparison(comparison, metrics["k"]),
            *_class_charts(metrics),
            *_channels(metrics["found_by"], metrics["k"]),
            *_missed(answers),
            "</html>\n",
        )
    )


def _figures(figures: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(f"{value:.3f}" for name, value in figures.items() if name != "questions")


def _headline(metrics: Mapping[str, Any]) -> str:
    times = metrics["search_ms"]
    told = [*((name, f"{value:.3f}") for name, value in metrics["figures"].items())]
    told += [("search p50", f"{times['p50']:.1f} ms"), ("search p95", f"{times['p95']:.1f} ms")]
    return f'<div class="figures">{"".join(f"<span><b>{value}</b>{escape(name)}</span>" for name, value in told)}</div>'


def _comparison(comparison: Comparison | None, k: int) -> Iterator[str]:
    if comparison:
        kind = "loss" if comparison.ndcg.is_loss else "even"
        yield f'<p class="{kind}">{escape(compared(comparison, k))}</p>'


def _class_charts(metrics: Mapping[str, Any]) -> Iterator[str]:
    figure = f"ndcg@{metrics['k']}"
    for name, by_value in metrics["classes"].items():
        values = ((f"{value} ({one['questions']})", one[figure]) for value, one in by_value.items())
        yield from _chart(f"{figure} by {name}", values)


def _channels(found_by: Mapping[str, Mapping[str, float]], k: int) -> Iterator[str]:
    if found_by:
        values = ((f"{name} ({one['alone']:.0%} alone)", one["share"]) for name, one in found_by.items())
        yield from _chart(f"Right hits in a channel's own first {k}", values)


def _chart(title: str, values: Iterable[tuple[str, float]]) -> Iterator[str]:
    """Yield a heading, and an SVG with a horizontal bar from 0 to 1 for each label."""
    drawn = [_bar(place * _BAR_HEIGHT, label, value) for place, (label, value) in enumerate(values)]
    width, height = _LABEL_WIDTH + _BAR_WIDTH + 60, len(drawn) * _BAR_HEIGHT
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    yield f"<h2>{escape(title)}</h2>"
    yield f'<svg role="img" aria-label="{escape(title)}" {size}>{"".join(drawn)}</svg>'


def _bar(top: int, label: str, value: float) -> str:
    box = f'x="{_LABEL_WIDTH}" y="{top + 4}" height="{_BAR_HEIGHT - 8}"'
    baseline = top + _BAR_HEIGHT - 6
    return (
        f'<text x="0" y="{baseline}">{escape(label)}</text><rect class="track" {box} width="{_BAR_WIDTH}"/>'
        f'<rect class="bar" {box} width="{value * _BAR_WIDTH:.1f}"/>'
        f'<text x="{_LABEL_WIDTH + _BAR_WIDTH + 8}" y="{baseline}">{value:.3f}</text>'
    )


def _missed(answers: Sequence[Answer]) -> Iterator[str]:
    missed = [answer for answer in answers if not answer.score.found]
    if not missed:
        return
    yield f"<h2>No right hit ({len(missed)})</h2>"
    yield "<table><tr><th>question<th>right<th>first hit</tr>"
    for answer in missed[:MOST_MISSED]:
        right = ", ".join(dict.fromkeys(place.path for place in answer.query.judged))
        first = f"{answer.hits[0].path}:{answer.hits[0].start_line}" if answer.hits else "none"
        yield f"<tr><td>{escape(answer.query.text)}<td>{escape(right)}<td>{escape(first)}</tr>"
    yield "</table>"
