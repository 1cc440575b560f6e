"""The int8 ONNX graph of a BERT encoder, written node by node from its safetensors weights. Needed once per machine.

Written by hand because an export needs torch, pads, and lets the optimiser choose slow fusions. What makes it fast and
still exact enough (cosine to float32 0.997, 1.7 × torch bf16 on one core):

- One text per run, so no padding, no mask, and a vector never depends on its batch neighbours.
- Weights are signed, symmetric and per output channel: per-tensor scales lose too much (token cosine 0.935).
- Weights stay within ±63: two u8·s8 products then fit 16 bits, so CPUs without VNNI do not saturate.
- Activations are scaled per tensor at run time, so channels that reach far are first divided by the square root of
  their reach and the weights multiplied by it (SmoothQuant, arXiv 2211.10438); this halves the error.
- Word embeddings are float16: half the file, no measurable loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from safetensors.numpy import load

from codeintel_rev.encoders.onnx_session import open_session
from codeintel_rev.types import Floats, Ids

Weights = Mapping[str, Floats]
Linear = Callable[["Graph", str, Floats, Floats], str]

HEADS = 12
EPSILON = 1e-12
REACH = 63
FUSED = "com.microsoft"


class Graph:
    """ONNX nodes and constants in the order they were added; every call returns the name of the new value."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def constant(self, array: NDArray[np.generic]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, op: str, *inputs: str, name: str = "", domain: str = "", **attributes: Any) -> str:
        output = name or f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def split(self, value: str, parts: int) -> list[str]:
        """Cut the last axis in `parts` equal pieces."""
        outputs = [f"{value}_part_{part}" for part in range(parts)]
        self.nodes.append(helper.make_node("Split", [value], outputs, axis=-1, num_outputs=parts))
        return outputs

    def model(self, outputs: Sequence[str]) -> ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "bert",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "tokens"])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None) for output in outputs],
            self.constants,
        )
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid(FUSED, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def int8_model(safetensors: bytes, calibration: Iterable[Ids]) -> bytes:
    """Return the serialised int8 model: `input_ids` (1, t) int64 → `embedding` (1, d), `last_hidden_state` (1, t, d).

    `embedding` is the unit-norm mean of the token vectors. `calibration` are tokenised texts, each (1, t) int64, that
    show how far each activation channel reaches.
    """
    weights = load(safetensors)
    graph = Graph()
    outputs = _bert(graph, weights, _int8_linear(_reaches(weights, calibration)))
    return bytes(graph.model(outputs).SerializeToString())


def _reaches(weights: Weights, calibration: Iterable[Ids]) -> list[Floats]:
    """Return the largest absolute value of every channel that enters each linear layer, in float32."""
    inputs: list[str] = []

    def linear(graph: Graph, value: str, weight: Floats, bias: Floats) -> str:
        inputs.append(value)
        return graph.add("Add", graph.add("MatMul", value, graph.constant(weight)), graph.constant(bias))

    graph = Graph()
    _bert(graph, weights, linear)
    session = open_session(graph.model(inputs).SerializeToString())
    runs = [session.run(inputs, {"input_ids": ids}) for ids in calibration]
    return [np.max([np.abs(seen).max(axis=(0, 1)) for seen in channel], axis=0) for channel in zip(*runs, strict=True)]


def _int8_linear(reaches: Iterable[Floats]) -> Linear:
    """Return a linear layer in int8; `reaches` come in the order in which the graph asks for its layers."""
    remaining = iter(reaches)

    def linear(graph: Graph, value: str, weight: Floats, bias: Floats) -> str:
        smooth = np.sqrt(np.maximum(next(remaining), 1e-4))
        smoothed = weight * smooth[:, None]
        scale = np.abs(smoothed).max(axis=0) / REACH
        return graph.add(
            "DynamicQuantizeMatMul",
            graph.add("Mul", value, graph.constant(1 / smooth)),
            graph.constant(np.rint(smoothed / scale).astype(np.int8)),
            graph.constant(scale),
            "",
            graph.constant(bias),
            domain=FUSED,
        )

    return linear


def _bert(graph: Graph, weights: Weights, linear: Linear) -> list[str]:
    """Add a whole encoder with `linear` for its dense layers and return its two outputs."""
    value = _embed(graph, weights)
    layers = sum(name.endswith(".attention.self.query.weight") for name in weights)
    for layer in range(layers):
        last = layer == layers - 1
        prefix = f"encoder.layer.{layer}."
        own = {name.removeprefix(prefix): array for name, array in weights.items() if name.startswith(prefix)}
        value = _layer(graph, own, value, linear, "last_hidden_state" if last else "")
    mean = graph.add("ReduceMean", value, graph.constant(np.array([1])), keepdims=0)
    return [graph.add("LpNormalization", mean, name="embedding", axis=-1, p=2), value]


def _embed(graph: Graph, weights: Weights) -> str:
    words = graph.constant(weights["embeddings.word_embeddings.weight"].astype(np.float16))
    token_type = weights["embeddings.token_type_embeddings.weight"][0]
    positions = graph.constant(weights["embeddings.position_embeddings.weight"] + token_type)
    word = graph.add("Cast", graph.add("Gather", words, "input_ids"), to=TensorProto.FLOAT)
    zero = graph.constant(np.array([0]))
    position = graph.add("Slice", positions, zero, graph.add("Shape", "input_ids", start=1, end=2), zero)
    return _normalise(graph, weights, "embeddings.LayerNorm", graph.add("Add", word, position))


def _layer(graph: Graph, weights: Weights, value: str, linear: Linear, name: str) -> str:
    def dense(layer: str, incoming: str) -> str:
        return linear(graph, incoming, weights[f"{layer}.weight"].T, weights[f"{layer}.bias"])

    def residual(layer: str, outgoing: str, skipped: str, name: str = "") -> str:
        return _normalise(graph, weights, f"{layer}.LayerNorm", graph.add("Add", outgoing, skipped), name)

    projections = _projections(graph, weights, value, linear)
    context = graph.add("MultiHeadAttention", *projections, domain=FUSED, num_heads=HEADS)
    attended = residual("attention.output", dense("attention.output.dense", context), value)
    activated = graph.add("Gelu", dense("intermediate.dense", attended), domain=FUSED)
    return residual("output", dense("output.dense", activated), attended, name)


def _projections(graph: Graph, weights: Weights, value: str, linear: Linear) -> list[str]:
    """Add query, key and value as one product, which reads and quantises `value` once."""
    parts = [f"attention.self.{part}" for part in ("query", "key", "value")]
    weight = np.concatenate([weights[f"{part}.weight"].T for part in parts], axis=1)
    bias = np.concatenate([weights[f"{part}.bias"] for part in parts])
    return graph.split(linear(graph, value, weight, bias), len(parts))


def _normalise(graph: Graph, weights: Weights, layer: str, value: str, name: str = "") -> str:
    gain, shift = graph.constant(weights[f"{layer}.weight"]), graph.constant(weights[f"{layer}.bias"])
    return graph.add("LayerNormalization", value, gain, shift, name=name, epsilon=EPSILON)


CALIBRATION = (
    """how do I retry a failed request with exponential backoff?""",
    """src/http/client.py HttpClient.fetch
async def fetch(self, url: str, *, timeout: float = 5.0) -> Response:
    # Return the response of a GET request, retrying on HTTP 503.
    for attempt in range(self.retries + 1):
        try:
            return await self._session.get(url, timeout=timeout)
        except ConnectionError as error:
            logger.warning("attempt %d failed: %s", attempt, error)
            await asyncio.sleep(2 ** attempt)
    raise RetriesExhausted(url)""",
    """internal/cache/lru.go Cache.Get
// Get returns the value stored under key and marks it as recently used.
func (c *Cache[K, V]) Get(key K) (value V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if element, found := c.items[key]; found {
		c.order.MoveToFront(element)
		return element.Value.(*entry[K, V]).value, true
	}
	return value, false
}""",
    """web/components/Table.tsx Table
export const Table: React.FC<TableProps> = ({ rows, columns, onSelect }) => {
  const [sorted, setSorted] = useState<Column | null>(null);
  const visible = useMemo(() => rows.filter((row) => !row.hidden), [rows]);
  return (
    <table className="table">
      {visible.map((row) => <tr key={row.id} onClick={() => onSelect(row)}>{row.name}</tr>)}
    </table>
  );
};""",
    """src/parser/lexer.rs Lexer::next_token
pub fn next_token(&mut self) -> Result<Token, LexError> {
    self.skip_whitespace();
    match self.chars.peek() {
        Some(&c) if c.is_ascii_digit() => self.number(),
        Some(&'"') => self.string(),
        Some(&c) => Err(LexError::Unexpected(c, self.position)),
        None => Ok(Token::EndOfFile),
    }
}""",
    """app/models/Invoice.java Invoice.total
@Override
public BigDecimal total(Currency currency) {
    return lines.stream()
        .map(line -> line.price().multiply(BigDecimal.valueOf(line.quantity())))
        .reduce(BigDecimal.ZERO, BigDecimal::add)
        .setScale(currency.getDefaultFractionDigits(), RoundingMode.HALF_UP);
}""",
    """docs/install.md Installing
## Installing

1. Run `make setup`, which creates the environment in `.venv`.
2. Set `DATABASE_URL=postgres://localhost:5432/app` and start the server:

   $ ./bin/server --port 8080 --verbose""",
    """lib/hash.c hash_insert
static int hash_insert(struct table *t, const char *key, size_t len, void *value)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)key[i]) * 16777619u;
    struct node *n = malloc(sizeof(*n) + len + 1);
    if (n == NULL)
        return -ENOMEM;
    n->next = t->buckets[h & t->mask];
    t->buckets[h & t->mask] = n;
    return 0;
}""",
)
"""Texts as they are encoded, in several languages: enough to see how far activations reach."""
