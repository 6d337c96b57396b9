"""The pages of the demo's site. They load nothing from other servers."""

from __future__ import annotations

from typing import Final

_HEAD: Final = (
    '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>Shop</title>'
    "<style>body{font:16px system-ui;max-width:32rem;margin:4rem auto}input,button{font:inherit;margin:.3rem 0}</style>"
)

LOGIN: Final = (
    f"{_HEAD}<h1>Sign in</h1>"
    '<form id="login" method="post" action="/login"><input name="user" placeholder="User"><br>'
    '<input name="password" type="password" placeholder="Password"><br><button>Sign in</button></form>'
)

WELCOME: Final = f"{_HEAD}<script>localStorage.setItem('token', 'TOKEN'); location.replace('/account');</script>"
"""The page after the form. `TOKEN` is replaced by the token of the user."""

ACCOUNT: Final = (
    f"{_HEAD}<h1 id='greeting'>One moment</h1><button id='add' disabled>Add to basket</button> <span id='basket'></span>"
    """<script>
const greeting = document.getElementById('greeting'), add = document.getElementById('add');
const show = () => { document.getElementById('basket').textContent = `${localStorage.getItem('basket') || 0} in basket`; };
add.onclick = () => { localStorage.setItem('basket', Number(localStorage.getItem('basket') || 0) + 1); show(); };
fetch('/api/me', {headers: {Authorization: `Bearer ${localStorage.getItem('token')}`}}).then(async (answer) => {
  if (!answer.ok) return location.replace('/login');
  greeting.textContent = `Hello ${(await answer.json()).user}`;
  add.disabled = false;
  show();
  document.body.dataset.ready = 'yes';
});
</script>"""
)
"""Shows the user after a request to the API with the token from localStorage. Without a valid token it opens the form."""
