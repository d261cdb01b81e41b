// The MCP front door with the official TypeScript client: the same story as mcp_story.py.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

const [appId, ...target] = process.argv.slice(2);
const transport = target[0].startsWith("http")
  ? new StreamableHTTPClientTransport(new URL(target[0]), { requestInit: { headers: { [target[1]]: target[2] } } })
  : new StdioClientTransport({ command: target[0], args: target.slice(1), env: process.env });
const client = new Client({ name: "story", version: "1.0.0" });
await client.connect(transport);
const call = async (name, args) => {
  const result = await client.callTool({ name, arguments: args });
  return { is_error: result.isError ?? false, content: result.structuredContent };
};
const { tools } = await client.listTools();
const added = await call("add_app_bucket", { app_id: appId });
const answers = {
  tools,
  add_app_bucket: added,
  list_app_buckets: await call("list_app_buckets", { app_id: appId }),
  get_app_bucket: await call("get_app_bucket", { bucket_id: added.content.bucket_id }),
  wrong: await call("get_app_bucket", { bucket_id: "buk-0000000000000" }),
};
await client.close();
console.log(JSON.stringify(answers));
