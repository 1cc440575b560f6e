"""What may be set?

Useful for: settings, defaults, where data lives. Not useful for: objects built from them (app/context.py).
"""
