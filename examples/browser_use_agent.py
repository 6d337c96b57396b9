# /// script
# requires-python = ">=3.11"
# dependencies = ["session-reuse[browser-use,embedded]"]
# ///
"""Run a browser-use agent twice: it logs in the first time and finds itself logged in the second time.

The model is a short script, so nothing leaves this machine. Put your own `llm` in its place. The agent closes its browser,
as browser-use agents do, and the session is captured before.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import Any

from login_site import LoginSite

from session_reuse import reusable_session

os.environ.update(
    ANONYMIZED_TELEMETRY="false", BROWSER_USE_CLOUD_SYNC="false", BROWSER_USE_VERSION_CHECK="false",
    BROWSER_USE_SETUP_LOGGING="false", SKIP_LLM_API_KEY_VERIFICATION="true",
)  # fmt: skip

from browser_use import Agent
from browser_use.llm.views import ChatInvokeCompletion

from session_reuse.browsers.browser_use import open_browser_session
from session_reuse.browsers.chromium import find_chromium, launch_arguments


class ScriptedModel:
    """Stand in for a language model: fill in the form if there is one, else end."""

    model = name = provider = model_name = "scripted"
    _verified_api_keys = True

    def __init__(self, url: str) -> None:
        self.url = url
        self.steps = 0

    async def ainvoke(self, messages: list[Any], output_format: type[Any] | None = None, **_: Any) -> Any:
        """Return an answer in the form that browser-use expects."""
        self.steps += 1
        assert output_format is not None
        answer = {"memory": "", "evaluation_previous_goal": "", "next_goal": "", "action": self._actions(messages)}
        return ChatInvokeCompletion(completion=output_format.model_validate(answer), usage=None)

    def _actions(self, messages: list[Any]) -> list[dict[str, Any]]:
        page = messages[-1].text
        if self.steps == 1:
            return [{"navigate": {"url": self.url}}]
        field, button = re.search(r"\[(\d+)\]<input", page), re.search(r"\[(\d+)\]<button", page)
        if field and button:
            return [{"input": {"index": int(field[1]), "text": "alice"}}, {"click": {"index": int(button[1])}}]
        return [{"done": {"text": "signed in", "success": True}}]


async def run(site: LoginSite, number: int) -> None:
    """Run the agent once."""
    model = ScriptedModel(site.url)
    browser: dict[str, Any] = {
        "headless": True, "executable_path": find_chromium(), "args": launch_arguments(), "chromium_sandbox": False,
        "enable_default_extensions": False, "minimum_wait_page_load_time": 0.1,
        "wait_for_network_idle_page_load_time": 0.1,
    }  # fmt: skip
    async with reusable_session("browser-use-login/alice", agent_id="agent-7") as session:
        async with open_browser_session(session, **browser) as browser_session:
            agent = Agent(
                "sign in", llm=model, browser_session=browser_session, use_vision=False, use_judge=False,
                enable_planning=False, directly_open_url=False,
            )  # fmt: skip
            await agent.run(max_steps=6)
        print(f"run {number}: {model.steps} steps, reused={session.reused}")


async def main() -> None:
    """Run the agent twice."""
    with LoginSite() as site:
        await run(site, 1)
        await run(site, 2)
        print(f"the form was filled in {site.logins} time(s)")


asyncio.run(main())
