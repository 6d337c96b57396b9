"""Programs of others, in Node and Python, logged in by `session-reuse run`: MCP servers, a command line, Playwright."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from session_reuse.browsers.cdp import open_chromium
from session_reuse.cli.commands.mcp_config import COMMANDS, Server
from tests.agents import npm
from tests.agents.runs import ALICE, ROOT, report_of, stored
from tests.cli.conftest import CommandLine
from tests.clients.visits import visit_agent
from tests.harness.polling import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.agents.runs import Runs
    from tests.clients.keeper import StubKeeper
    from tests.clients.site import Site
    from tests.harness.servers import RedisServer

pytestmark = [pytest.mark.browser, pytest.mark.redis, pytest.mark.timeout(300)]
CALL_LIMIT = 60


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    """Install the programs, or skip with the reason."""
    if (reason := npm.missing()) is not None:
        pytest.skip(reason)


class McpServer:
    """An MCP server that is being used."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session

    async def call(self, tool: str, **arguments: Any) -> str:
        """Call a tool and return the text of its answer, which is no error."""
        async with asyncio.timeout(CALL_LIMIT):
            answer = await self._session.call_tool(tool, arguments)
        text = " ".join(getattr(part, "text", "") for part in answer.content)
        assert not answer.is_error, text
        return text

    async def call_until(self, wanted: str, tool: str, **arguments: Any) -> str:
        """Call a tool until its answer has a text."""
        last = ""
        try:
            async with asyncio.timeout(CALL_LIMIT):
                while wanted not in (last := await self.call(tool, **arguments)):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{tool} did not answer {wanted!r}, but {last!r}") from None
        return last


def taken(report: Path) -> dict[str, Any]:
    """Return a report, and remove its file."""
    found: dict[str, Any] = json.loads(report.read_text())
    report.unlink()
    return found


@asynccontextmanager
async def started(runs: Runs, redis: RedisServer, server: Server) -> AsyncIterator[McpServer]:
    """Start a server as an MCP client does that has the block of `mcp-config`. Nothing of the session may be amiss."""
    block = json.loads(CommandLine(redis.url)("mcp-config", ALICE, "--for", server).out)["mcpServers"][server]
    report = Path(runs.folder, "report.json")
    # In place of `npx -y NAME@VERSION`, which would look for it at the registry, the same version that is installed here.
    given = COMMANDS[server]
    name = {Server.PLAYWRIGHT: "playwright-mcp", Server.CHROME_DEVTOOLS: "chrome-devtools-mcp"}.get(server, str(server))
    arguments = [*block["args"][: -len(given)][:-1], "--report", str(report), "--", npm.program(name), *given[3:]]
    environment = {**runs.environment, **block["env"], "CHROME_DEVTOOLS_MCP_NO_USAGE_STATISTICS": "1"}
    parameters = StdioServerParameters(
        command=sys.executable, args=["-m", "session_reuse.cli", *arguments], env=environment, cwd=runs.folder
    )
    nowhere: Any = subprocess.DEVNULL
    async with stdio_client(parameters, errlog=nowhere) as streams, ClientSession(*streams) as session:
        await session.initialize()
        yield McpServer(session)
    await until(report.exists, timeout=CALL_LIMIT, message="the run has not ended")  # the client waits for 2 s at most
    found = taken(report)
    assert (found["problems"], found["save_outcome"] in {"saved", "unchanged", "merged"}) == ([], True), found


async def test_a_login_by_one_mcp_server_is_reused_by_another(
    runs: Runs, redis_server: RedisServer, site: Site
) -> None:
    """Cookie, localStorage and database are there in a new tab and in a popup, by three servers of different makers."""
    async with started(runs, redis_server, Server.PLAYWRIGHT) as playwright:
        await playwright.call("browser_navigate", url=site.url())
        await playwright.call("browser_click", element="the button", target="#submit")
        await playwright.call_until("done welcome", "browser_evaluate", function="() => document.title")
    async with started(runs, redis_server, Server.CHROME_DEVTOOLS) as devtools:
        await devtools.call("new_page", url=site.url())
        await devtools.call_until(site.EVERYWHERE, "list_pages")
        script = f"() => {{ const link = document.createElement('a'); link.href = {site.url()!r}; link.target = '_blank'; link.id = 'popup'; link.textContent = 'popup'; document.body.prepend(link) }}"
        await devtools.call("evaluate_script", pageId=2, function=script)
        page = await devtools.call("take_snapshot", pageId=2)
        (uid,) = [line.split()[0].removeprefix("uid=") for line in page.splitlines() if 'link "popup"' in line]
        await devtools.call("click", pageId=2, uid=uid)
        await devtools.call_until(f"3: {site.WITHOUT_TAB}", "list_pages")
    async with started(runs, redis_server, Server.AGENT_BROWSER) as agent_browser:
        await agent_browser.call("agent_browser_open", url=site.url())
        await agent_browser.call_until(site.EVERYWHERE, "agent_browser_get_title")
        await agent_browser.call("agent_browser_close")  # it leaves a daemon behind otherwise
    assert site.logins == 1


def test_an_agent_in_python_and_one_in_node_at_once_lose_no_change(
    logged_in_runs: Runs, redis_server: RedisServer, site: Site
) -> None:
    """Playwright of both languages, on one session at the same time: both find the login, both changes are stored."""
    python = [sys.executable, "-m", "tests.agents.agent_playwright", site.url(), "python"]
    node = ["node", str(ROOT / "tests/agents/agent.mjs"), str(npm.FOLDER), site.url(), "node"]
    for process in [logged_in_runs.start("--", *words) for words in (python, node)]:
        with process:
            out, err = process.communicate(timeout=CALL_LIMIT)
        assert out.strip() == site.EVERYWHERE, err
        assert report_of(err)["outcome"] == "reused"
    (origin,) = stored(redis_server.url)["origins"]
    assert {"python", "node", "token"} <= {item["name"] for item in origin["localStorage"]}


def block(page: str, language: str) -> str:
    """Return the first block in a language of a how-to page."""
    text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text(encoding="utf-8")
    return text.split(f"```{language}\n")[1].split("```")[0]


def test_the_script_of_the_page_for_agent_browser_is_logged_in(logged_in_runs: Runs, site: Site) -> None:
    """Each of its commands finds the address in the environment. Its background process ends with `close`."""
    script = Path(logged_in_runs.folder, "tour.sh")
    url = "https://shop.example/account"
    script.write_text(
        block("agent-browser", "sh").replace(
            url, f"{site.url()} && agent-browser wait --fn \"document.title.startsWith('done')\""
        )
    )
    logged_in_runs.environment["PATH"] = f"{Path(npm.program('x')).parent}:{logged_in_runs.environment['PATH']}"
    code, out, report = logged_in_runs.run("--", "sh", str(script))
    assert site.EVERYWHERE in out, (code, out, report)


def test_the_program_of_the_page_for_node_is_logged_in(logged_in_runs: Runs, site: Site) -> None:
    """It finds the address in the environment, and the session in the first context."""
    program = npm.FOLDER / "agent.js"
    waiting = "await page.waitForFunction(() => document.title.startsWith('done'));\n  console.log"
    program.write_text(block("playwright-node", "js").replace("console.log", waiting))
    logged_in_runs.environment["SHOP_URL"] = site.url()
    code, out, report = logged_in_runs.run("--", "node", str(program))
    assert (code, out.strip()) == (0, site.EVERYWHERE), report


def test_the_program_of_the_page_for_stagehand_is_logged_in(logged_in_runs: Runs, site: Site) -> None:
    """Its extension connects too, with the flag that the page names."""
    program = npm.FOLDER / "agent.mjs"
    waiting = (
        "while (!(await page.title()).startsWith('done')) await new Promise((on) => setTimeout(on, 50));\nconsole.log"
    )
    program.write_text(block("by-address", "js").replace("console.log", waiting))
    flag = block("by-address", "sh").split("--chromium-arg='")[1].split("'")[0]
    logged_in_runs.environment["SHOP_URL"] = site.url()
    words = ("--chromium-arg", flag, "--", "node", "--experimental-websocket", str(program))  # for Node 20
    code, out, report = logged_in_runs.run(*words)
    assert (code, out.strip().splitlines()[-1:]) == (0, [site.EVERYWHERE]), report


async def test_the_way_of_the_page_for_addresses_is_logged_in(
    quiet_agents: dict[str, str], agent_leftovers: None, logged_in: StubKeeper, site: Site
) -> None:
    """browser-use connects to the address and finds the session."""
    from browser_use import BrowserSession

    async with open_chromium(logged_in.enter()) as chromium:
        browser = BrowserSession(cdp_url=chromium.cdp_url)
        await browser.start()
        assert await visit_agent(browser, site.url()) == site.EVERYWHERE
        await browser.stop()


@pytest.mark.parametrize("server", Server)
def test_the_block_of_a_page_is_what_is_printed(server: Server) -> None:
    """The page shows what `mcp-config` prints, with the program by its name."""
    page = {Server.PLAYWRIGHT: "playwright-mcp", Server.CHROME_DEVTOOLS: "chrome-devtools-mcp"}.get(server, str(server))
    shown = json.loads(block(page, "json"))
    printed = json.loads(CommandLine("redis://127.0.0.1:6379/0")("mcp-config", ALICE, "--for", server).out)
    assert Path(printed["mcpServers"][server]["command"]).is_absolute()
    printed["mcpServers"][server]["command"] = "session-reuse"
    printed["mcpServers"][server]["env"] = {
        "SESSION_REUSE_URL": printed["mcpServers"][server]["env"]["SESSION_REUSE_URL"]
    }
    assert printed == shown


def test_a_secret_of_the_store_is_printed_with_reveal_only() -> None:
    """A password and keys are left out, and a note names the variable."""
    cli = CommandLine("redis://:canary@127.0.0.1:6379/0")
    answer = cli("mcp-config", ALICE, SESSION_REUSE_ENCRYPTION_KEYS="canary")
    assert "canary" not in answer.out + answer.err
    assert ("SESSION_REUSE_URL" in answer.err, "SESSION_REUSE_ENCRYPTION_KEYS" in answer.err) == (True, True)
    assert "canary@" in cli("mcp-config", ALICE, "--reveal").out


def test_only_settings_are_printed() -> None:
    """Not what somebody else calls by our prefix, nor the address of the browser in which the command runs."""
    others = {"SESSION_REUSE_PASSWORD": "canary", "SESSION_REUSE_CDP_URL": "http://127.0.0.1:canary"}
    (block,) = CommandLine("redis://127.0.0.1:6379/0")("mcp-config", ALICE, **others).json["mcpServers"].values()
    assert "SESSION_REUSE_URL" in block["env"]
    assert not block["env"].keys() & others.keys()


def test_a_server_with_a_context_of_its_own_is_reported(runs: Runs, site: Site) -> None:
    """`--isolated` of a server that connects to our browser shows up in the report."""
    script = (
        f"const {{ chromium }} = require('playwright-core'); (async () => {{"
        "const browser = await chromium.connectOverCDP(process.env.CDP_URL);"
        f"const page = await (await browser.newContext()).newPage(); await page.goto({site.url()!r});"
        "await browser.close() })()"
    )
    with runs.start("--", "node", "-e", script, cwd=npm.FOLDER) as process:
        _, err = process.communicate(timeout=CALL_LIMIT)
    assert [each["kind"] for each in report_of(err)["problems"]] == ["other_context"]


def test_the_versions_that_are_printed_are_those_that_are_tested() -> None:
    """`mcp-config` names the versions of package.json."""
    wanted = json.loads(Path(npm.__file__).with_name("package.json").read_text())["dependencies"]
    for words in COMMANDS.values():
        name, _, version = words[2].rpartition("@")
        assert wanted[name] == version


def test_what_is_installed_is_what_is_wanted() -> None:
    """The programs are the pinned ones."""
    done = subprocess.run([npm.program("playwright-mcp"), "--version"], capture_output=True, text=True, check=True)
    assert "0.0.83" in done.stdout
