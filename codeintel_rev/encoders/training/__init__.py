"""How does a late-interaction encoder learn code?

Useful for: making a checkpoint from pairs of a question and its code. Not useful for: serving; nothing that serves
imports this.
"""
