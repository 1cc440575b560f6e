"""How good is the ranking, and did a change make it worse?

Useful for: scoring answers against judgements, comparing two runs, making questions from an index's own symbols.
Not useful for: answering (retrieval); measuring speed under load (benchmarks).
"""
