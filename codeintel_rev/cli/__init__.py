"""How does an operator ask?

Useful for: terminal commands. Not useful for: anything another layer could own.
"""
