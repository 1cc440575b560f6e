"""Which chunks answer this query? The read side: start at search.py.

Useful for: plan, channels, fusion, ranking. Not useful for: exact text and files (navigation).
"""
