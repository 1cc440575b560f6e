"""Where is it kept, and who else is asked?

Useful for: files, indexes, catalogues, git. Not useful for: ranking, parsing.
"""
