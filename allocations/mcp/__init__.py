"""The MCP server: agents get ports that nobody else has (spec section 7)."""
