"""A session's tools as an MCP server, so that a user's own assistant can call them (section 3).

The user who starts the server names the data; the assistant cannot name a file.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from proteus_omics.engine.loop import TOOL_FAILURES
from proteus_omics.errors import MissingExtraError
from proteus_omics.sessions import Session

try:
    from mcp import types
    from mcp.server.lowlevel import Server
    from mcp.server.stdio import stdio_server
except ImportError as error:
    raise MissingExtraError(
        "an MCP server needs an optional extra: pip install 'proteus-omics[mcp]'"
    ) from error

INSTRUCTIONS = (
    "Typed tools of proteomics on one data set. Begin with describe_data. Tools leave artifacts by name; "
    "show_table shows aggregate rows; check_statement says whether a text agrees with the tables."
)


def mcp_server(session: Session) -> Server[Any]:
    """A server with every action of the session as a tool; calls run one after another."""
    at_work = asyncio.Lock()
    listed = [
        types.Tool(name=one.name, description=one.description, input_schema=dict(one.schema))
        for one in session.actions()
    ]

    async def list_tools(context: Any, params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=listed)

    async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        try:
            async with at_work:
                answer = await asyncio.to_thread(session.call, params.name, params.arguments or {})
        except TOOL_FAILURES as error:
            return types.CallToolResult(content=[types.TextContent(text=str(error))], is_error=True)
        images = [
            types.ImageContent(data=base64.b64encode(png).decode(), mime_type="image/png")
            for png in answer.figures
        ]
        return types.CallToolResult(content=[types.TextContent(text=answer.text), *images])

    return Server(
        "proteus-omics", instructions=INSTRUCTIONS, on_list_tools=list_tools, on_call_tool=call_tool
    )


def serve(session: Session) -> None:
    """Serve on standard input and output until the client leaves."""
    server = mcp_server(session)

    async def run() -> None:
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())

    asyncio.run(run())
