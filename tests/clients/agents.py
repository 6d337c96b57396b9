"""A browser-use agent whose model is a script."""

from __future__ import annotations

import re
from typing import Any

QUIET = {
    "ANONYMIZED_TELEMETRY": "false",
    "BROWSER_USE_CLOUD_HINTS": "false",
    "BROWSER_USE_CLOUD_SYNC": "false",
    "BROWSER_USE_DISABLE_EXTENSIONS": "true",
    "BROWSER_USE_LOGGING_LEVEL": "error",
    "BROWSER_USE_SETUP_LOGGING": "false",
    "BROWSER_USE_VERSION_CHECK": "false",
    "SKIP_LLM_API_KEY_VERIFICATION": "true",
}
"""browser-use phones home, looks for updates and writes to the console unless it is told not to."""


def browser_options() -> dict[str, Any]:
    """Return options of a `browser_use.BrowserSession` that downloads nothing and starts for root."""
    from session_reuse.browsers.chromium import find_chromium, launch_arguments

    return {
        "headless": True,
        "executable_path": find_chromium(),
        "args": launch_arguments(),
        "chromium_sandbox": False,
        "enable_default_extensions": False,
        "minimum_wait_page_load_time": 0.0,
        "wait_between_actions": 0.0,
        "wait_for_network_idle_page_load_time": 0.0,
    }


class ScriptedModel:
    """A chat model that logs in when it is shown a login form, and ends when it is not.

    It follows browser-use's `BaseChatModel`. What it says depends on the page in the last message only.
    """

    model = name = provider = model_name = "scripted"
    _verified_api_keys = True

    def __init__(self, url: str, user: str) -> None:
        self.url = url
        self.user = user
        self.steps = 0
        self.is_sent = False

    async def ainvoke(self, messages: list[Any], output_format: type[Any] | None = None, **_: Any) -> Any:
        """Answer with the actions for the page that is shown."""
        from browser_use.llm.views import ChatInvokeCompletion

        self.steps += 1
        assert output_format is not None
        answer = {"memory": "", "evaluation_previous_goal": "", "next_goal": "", "action": self._actions(messages)}
        return ChatInvokeCompletion(completion=output_format.model_validate(answer), usage=None)

    def _actions(self, messages: list[Any]) -> list[dict[str, Any]]:
        page = messages[-1].text
        if self.steps == 1:
            return [{"navigate": {"url": self.url}}]
        if "Please sign in" not in page:
            return [{"done": {"text": "signed in", "success": True}}]
        if self.is_sent:  # a busy browser still shows the form
            return [{"wait": {"seconds": 1}}]
        self.is_sent = True
        field, button = re.search(r"\[(\d+)\]<input", page), re.search(r"\[(\d+)\]<button", page)
        assert field, page
        assert button, page
        return [{"input": {"index": int(field[1]), "text": self.user}}, {"click": {"index": int(button[1])}}]


async def run_agent(browser_session: Any, url: str, user: str) -> ScriptedModel:
    """Let an agent do its work with a browser-use session. It closes it at the end, as agents do."""
    from browser_use import Agent

    model = ScriptedModel(url, user)
    agent = Agent(
        "sign in", llm=model, browser_session=browser_session, use_vision=False, use_judge=False,
        enable_planning=False, directly_open_url=False,
    )  # fmt: skip
    history = await agent.run(max_steps=30)
    assert history.is_done(), history.errors()
    return model
