"""The MCP front door with the official Python client: lists the tools and calls each.

usage: mcp_story.py APP_ID URL HEADER VALUE    Streamable HTTP
       mcp_story.py APP_ID COMMAND...          stdio
Prints one JSON object: the names of the tools, and each tool's structured answer.
"""

import asyncio
import json
import os
import sys

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client


async def main(app_id, target):
    if target[0].startswith("http"):
        url, header, value = target
        http = httpx2.AsyncClient(headers={header: value}, timeout=60)
        server = streamable_http_client(url, http_client=http)
    else:
        server = StdioServerParameters(command=target[0], args=target[1:], env=dict(os.environ))
    async with Client(server) as client:
        tools = await client.list_tools()

        async def call(name, **arguments):
            result = await client.call_tool(name, arguments)
            return {"is_error": bool(result.is_error), "content": result.structured_content}

        added = await call("add_app_bucket", app_id=app_id)
        answers = {
            "tools": [tool.model_dump(by_alias=True, mode="json") for tool in tools.tools],
            "add_app_bucket": added,
            "list_app_buckets": await call("list_app_buckets", app_id=app_id),
            "get_app_bucket": await call("get_app_bucket", bucket_id=added["content"]["bucket_id"]),
            "wrong": await call("get_app_bucket", bucket_id="buk-0000000000000"),
            "protocol": str(client.protocol_version),
        }
    print(json.dumps(answers))


asyncio.run(main(sys.argv[1], sys.argv[2:]))
