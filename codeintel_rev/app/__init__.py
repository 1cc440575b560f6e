"""How does a process start, stop and speak HTTP?

Useful for: lifespan, routes, probes. Not useful for: what a query means.
"""
