"""What a server serves: the model's id and how many tokens it reads."""

from __future__ import annotations

from dataclasses import dataclass

from codeintel_rev.errors import UpstreamFailed
from codeintel_rev.io.vllm.endpoint import EndpointName
from codeintel_rev.io.vllm.http import Reply, Upstream
from codeintel_rev.io.vllm.refusals import failure, parsed_object, reason_of


@dataclass(frozen=True, slots=True)
class ModelCard:
    """`root` is what the model was loaded from, `max_model_len` the tokens of prompt and answer together."""

    id: str
    root: str
    max_model_len: int | None


async def served_model(upstream: Upstream, *, trace_id: str) -> ModelCard:
    """Return the card of the configured model; one without a length where the server lists no models.

    Raises UpstreamFailed, with the reason model_absent when the server lists others only.
    """
    endpoint = upstream.endpoint
    try:
        cards = await upstream.get("/v1/models", lambda reply: model_cards(endpoint.name, reply), trace_id=trace_id)
    except UpstreamFailed as error:
        if reason_of(error) != "route_absent":
            raise
        return ModelCard(endpoint.model, endpoint.model, None)
    chosen = next((card for card in cards if card.id == endpoint.model), None)
    if chosen is None:
        raise failure(endpoint.name, "model_absent", f"serves {len(cards)} models, none of them {endpoint.model}")
    return chosen


def model_cards(name: EndpointName, reply: Reply) -> tuple[ModelCard, ...]:
    """Return the models of a `/v1/models` answer. Raises UpstreamMalformed."""
    data = parsed_object(name, reply.body).get("data")
    cards = [card for card in data if isinstance(card, dict)] if isinstance(data, list) else []
    if (
        not isinstance(data, list)
        or len(cards) < len(data)
        or not all(isinstance(card.get("id"), str) for card in cards)
    ):
        raise failure(name, "malformed", "listed its models in an unknown way")
    return tuple(ModelCard(card["id"], _root(card), _length(card.get("max_model_len"))) for card in cards)


def _root(card: dict[str, object]) -> str:
    root = card.get("root")
    return root if isinstance(root, str) else str(card["id"])


def _length(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
