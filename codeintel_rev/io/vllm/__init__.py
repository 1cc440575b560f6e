"""Which models are asked over HTTP, and what may be believed of their answers?

Useful for: vectors, scores and text from vLLM and from servers that speak like it. Not useful for: prompts, citations.
"""
