"""What do the lines that were found say? An answer: text with citations that were checked, as a stream of events.

Useful for: asking a question in words and getting sentences that each name their lines, with or without a model.
Not useful for: lists of hits (`retrieval`), frames on a wire (`app`), the protocol of a model server (`io`).
"""
