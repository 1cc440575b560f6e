"""What can be seen from outside?

Useful for: metric names, logging, spans. Not useful for: deciding what to measure.
"""
