"""What stands at this place?

Useful for: files, exact text, lists of paths. Not useful for: ranking.
"""
