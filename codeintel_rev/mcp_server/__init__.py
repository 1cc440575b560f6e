"""How does an agent ask?

Useful for: MCP tools and their wire shapes. Not useful for: HTTP routes (app).
"""
