"""The MCP server, through which agents get ports."""
