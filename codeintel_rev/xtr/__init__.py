"""Which tokens match which? Late interaction: a document's score is the sum, over query tokens, of its best token.

    score(query, document) = Σ_q max_t ⟨query[q], document[t]⟩          MaxSim, ColBERT (Khattab & Zaharia 2020, §3.2)

A library of its own: numpy and numba, and torch in `cuda` alone; it knows documents as (doc_id, unit token vectors) and
nothing of chunks, shards or services. Read `search`, then `kernels`; `storage` is the format.

Useful for: rescoring candidates, searching all tokens, saying which token matched which.
Not useful for: making token vectors (encoders), or deciding what a score is worth (retrieval).
"""
