"""How does text become vectors?

Useful for: dense vectors of code and queries. Not useful for: storing or searching them.
"""
