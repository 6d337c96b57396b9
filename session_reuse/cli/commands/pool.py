"""`session-reuse pool`: the identities that agents share out among themselves."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Annotated, Final

from session_reuse._logins.pool import fingerprint_in, members_of
from session_reuse._manager import SessionManager, runtime_of
from session_reuse._session.composition import Runtime
from session_reuse._store.interface import PoolMember
from session_reuse._store.keys import checked, is_name
from session_reuse.cli.connection import Place, connected, execute
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import duration, plural, printable
from session_reuse.cli.listing import Refusals
from session_reuse.cli.options import argument
from session_reuse.cli.output import Output, Table
from session_reuse.errors import ConfigurationError

_FAR: Final = 1e9


class Action(StrEnum):
    """What to do with a pool."""

    ADD = "add"
    RM = "rm"
    LS = "ls"


Wanted = Annotated[Action, argument("add|rm|ls", "What to do.")]
Name = Annotated[str | None, argument("POOL", "Name of the pool; ls: all.")]
Members = Annotated[list[str] | None, argument("MEMBER", "Names in the pool, for add and rm.")]


async def pool(output: Output, place: Place, action: Wanted, name: Name = None, members: Members = None) -> ExitCode:
    """Add identities to a pool, remove some, or list them, the next one to be used first.

    The session of member alice in pool shop.example has the fingerprint shop.example/alice.
    """
    if action is not Action.LS and (name is None or not members):
        raise ConfigurationError(f"name a pool and its members: session-reuse pool {action} POOL MEMBER...")
    async with connected(place) as manager:
        if name is None or action is Action.LS:
            return await _list(manager, name, output)
        changed = await (manager.pool(name).add if action is Action.ADD else manager.pool(name).remove)(*members or ())
        output.emit({"pool": name, "changed": changed})
        output.show(f"{printable(name)}: {plural(changed, 'member')} {'added' if action is Action.ADD else 'removed'}")
    return ExitCode.WRONG if action is Action.RM and not changed else ExitCode.OK


async def _list(manager: SessionManager, name: str | None, output: Output) -> ExitCode:
    runtime, refusals = await runtime_of(manager), Refusals()
    if name is not None:
        names = [checked(name, "pool")]
    else:
        found = await execute(runtime, lambda timeout: runtime.store.pools(timeout=timeout))
        names = [each for each in found if is_name(each)]  # the others are of another program
    rows = Table("pool", "member", "free")
    for each in names:
        members: list[PoolMember] = []
        with refusals.of(f"pool {each!r}"):
            members = await members_of(runtime, each)
            members = await asyncio.gather(*(_with_lease(runtime, each, member) for member in members))
        for member, seconds in members:
            free_in = min(seconds, _FAR)  # another program may have written infinity, which JSON has not
            fingerprint = fingerprint_in(each, member)
            output.emit({"pool": each, "member": member, "fingerprint": fingerprint, "free_in": free_in})
            rows.add_row(each, member, f"in {duration(free_in)}" if free_in else "now")
    if rows:
        output.show(rows)
    else:
        whose = "no pool has a member" if name is None else f"pool {name!r} has no members"
        output.note(f"{whose}: add some with session-reuse pool add")
    return refusals.end(output)


async def _with_lease(runtime: Runtime, pool: str, member: PoolMember) -> PoolMember:
    """Return a member that is not free before the lease of the agent ends that has it."""
    name = fingerprint_in(pool, member.name)
    if not is_name(name):
        return member
    entry = await runtime.store.member_facts(pool, member.name, name, timeout=runtime.config.restore_timeout)
    return member if entry is None else PoolMember(member.name, max(member.free_in, entry.lease_left))
