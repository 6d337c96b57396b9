// An OpenID provider with rotating refresh tokens and detection of their reuse. Its clock goes on when it is told to.
//
// node oidc_provider.mjs FOLDER ACCESS_LIFE REFRESH_LIFE    FOLDER has node_modules; lives in seconds; prints its address
//
// POST /clock?seconds=60   advances the clock
// GET /report              {reused, revoked, refreshed, logins, now}

import { createServer } from "node:http";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, accessLife, refreshLife] = process.argv.slice(2);
const { resolve } = createRequire(`${folder}/package.json`);
const { Provider } = await import(pathToFileURL(resolve("oidc-provider")));

const began = Date.now();
let advanced = 0;
Date.now = () => began + advanced * 1000;

// The store of the provider in memory keeps the latest 1000 things only. A day of tokens is more.
const stored = new Map();
class Adapter {
  constructor(kind) {
    this.kind = kind;
  }
  async upsert(id, payload) {
    stored.set(`${this.kind}:${id}`, payload);
  }
  async find(id) {
    return stored.get(`${this.kind}:${id}`);
  }
  async findByUid(uid) {
    return [...stored.values()].find((each) => each.kind === this.kind && each.uid === uid);
  }
  async consume(id) {
    stored.get(`${this.kind}:${id}`).consumed = Math.floor(Date.now() / 1000);
  }
  async destroy(id) {
    stored.delete(`${this.kind}:${id}`);
  }
  async revokeByGrantId(grant) {
    for (const [id, each] of stored) if (each.grantId === grant) stored.delete(id);
  }
}

const server = createServer();
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const issuer = `http://127.0.0.1:${server.address().port}`;
const provider = new Provider(issuer, {
  adapter: Adapter,
  clients: [
    {
      client_id: "agent",
      application_type: "native",
      token_endpoint_auth_method: "none",
      grant_types: ["authorization_code", "refresh_token"],
      redirect_uris: ["http://127.0.0.1/done"],
    },
  ],
  cookies: { keys: ["a key of a test"] },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  pkce: { required: () => false },
  rotateRefreshToken: true,
  ttl: { AccessToken: +accessLife, RefreshToken: +refreshLife, Grant: 864000, Session: 864000, Interaction: 3600, IdToken: 3600 },
});

const report = { reused: 0, revoked: 0, refreshed: 0, logins: 0 };
provider.on("grant.error", (_, error) => (report.reused += error.error_detail === "refresh token already used"));
provider.on("grant.revoked", () => (report.revoked += 1));
provider.on("grant.success", ({ oidc }) => (report[oidc.params.grant_type === "refresh_token" ? "refreshed" : "logins"] += 1));
provider.on("server_error", (_, error) => console.error(error));

server.on("request", (request, response) => {
  const url = new URL(request.url, issuer);
  if (url.pathname === "/clock") advanced += Number(url.searchParams.get("seconds"));
  if (url.pathname !== "/clock" && url.pathname !== "/report") return provider.callback()(request, response);
  response.setHeader("Content-Type", "application/json");
  response.end(JSON.stringify({ ...report, now: advanced }));
});
console.log(issuer);
process.stdin.on("end", () => process.exit()).resume();
