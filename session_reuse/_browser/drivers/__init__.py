"""The three ways to a browser: Playwright's asynchronous API, its synchronous API, and a DevTools websocket of our own."""
