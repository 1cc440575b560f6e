"""How does source become a generation? The write side.

Useful for: scan, parse, chunk, encode, publish. Not useful for: answering.
"""
