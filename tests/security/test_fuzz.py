"""Hostile values under our keys: nothing but CorruptStateError, in bounded time and memory."""

from __future__ import annotations

import os
import random

import pytest

from session_reuse import SessionManager, reusable_session
from session_reuse._state import compression, sealing
from session_reuse._state.codec import Codec
from session_reuse.errors import CorruptStateError
from tests.harness.servers import RedisServer
from tests.security.fuzz import KEY, LIMIT, MOST_MEMORY, NAME, OTHER_KEY, body, bomb, fuzz, header, targets


def test_a_mutated_value_is_corrupt_and_breaks_nothing() -> None:
    """3,000 mutated values: all corrupt, or unharmed where scripts write. None slow, none large."""
    seed = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(10**6)))
    findings = fuzz(3000, seed)
    print(findings)  # noqa: T201  (shown when something fails)
    assert not findings.wrong
    assert findings.most_memory <= MOST_MEMORY
    assert findings.corrupt > 2000


def test_an_unencrypted_value_is_refused_where_keys_are_set() -> None:
    """With keys, no plain body gets in, whatever its head says."""
    ours = Codec(keys=(b"k" * 32,), max_bytes=LIMIT)
    plain = bytearray(Codec(max_bytes=LIMIT).encode(body(NAME, 3000), "o", header(), KEY))
    for sealing_flag in (b"-", b"a"):
        for key_id in (b"00000000", ours.seal.key_id.encode()):
            plain[5:6], plain[8:16] = sealing_flag, key_id
            with pytest.raises(CorruptStateError):
                ours.decode(bytes(plain), KEY)


@pytest.mark.parametrize("keys", [(), (b"k" * 32,)], ids=["plain", "encrypted"])
def test_a_value_of_another_account_is_corrupt(keys: tuple[bytes, ...]) -> None:
    """A value moved to another key is corrupt there, also when its key name is rewritten."""
    codec = Codec(keys=keys)
    value = codec.encode(body(NAME, 3000), "o", header(), KEY)
    with pytest.raises(CorruptStateError):
        codec.decode(value, OTHER_KEY)
    renamed = value.replace(b"%04d%b" % (len(KEY), KEY.encode()), b"%04d%b" % (len(OTHER_KEY), OTHER_KEY.encode()))
    with pytest.raises(CorruptStateError):
        codec.decode(renamed, OTHER_KEY)


def test_no_unverified_byte_reaches_the_decompressor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seal is checked before anything is inflated or parsed."""
    codec = Codec(keys=(b"k" * 32,))
    value = bytearray(codec.encode(body(NAME, 3000), "o", header(), KEY))
    value[-1] ^= 1

    def reached(*_: object) -> bytes:
        raise AssertionError("inflated before its seal was checked")

    monkeypatch.setattr("session_reuse._state.codec.decompress", reached)
    with pytest.raises(CorruptStateError):
        codec.decode(bytes(value), KEY)


def test_neither_key_id_nor_timing_tells_a_key() -> None:
    """Digests are compared in constant time, and a key's id is a hash with its own purpose."""
    assert sealing.key_id(b"k" * 32) != sealing.key_id(b"l" * 32)
    assert len(sealing.key_id(b"k" * 32)) == 8
    assert "compare_digest" in sealing.Checksum.open.__code__.co_names


@pytest.mark.parametrize("name", ["zstd", "lz4", "zlib", "none"])
def test_nothing_inflates_beyond_the_limit(name: str) -> None:
    """No algorithm returns more than it was allowed."""
    packer = compression.compressor(name)
    with pytest.raises(CorruptStateError):
        compression.decompress(packer.flag, packer.compress(bytes(LIMIT + 1)), LIMIT)
    assert compression.decompress(packer.flag, packer.compress(bytes(LIMIT)), LIMIT) == bytes(LIMIT)


@pytest.mark.parametrize("kind", ["list", "hash", "stream", "text"])
async def test_a_hostile_value_does_not_stop_the_agent(
    manager: SessionManager, redis_server: RedisServer, kind: str
) -> None:
    """Whatever is put under the key: a fresh session, the breaker unmoved, and the save goes through."""
    with redis_server.client() as client:
        put = {
            "list": lambda: client.rpush(KEY, "x"),
            "hash": lambda: client.hset(KEY, "x", "y"),
            "stream": lambda: client.xadd(KEY, {"x": "y"}),
            "text": lambda: client.set(KEY, "logged in"),
        }
        put[kind]()
    async with reusable_session(NAME, manager=manager) as session:
        assert session.outcome == "corrupt"
        session.data["n"] = 1
    assert session.save_outcome == "saved"
    assert set(manager.stats().breakers.values()) == {"closed"}
    async with reusable_session(NAME, manager=manager) as session:
        assert session.data == {"n": 1}


async def test_a_bomb_is_left_alone(manager: SessionManager, redis_server: RedisServer) -> None:
    """A value that inflates beyond `max_state_bytes` costs the agent its login and nothing else, and may be good."""
    value = bomb(random.Random(1), targets()[0])
    with redis_server.client() as client:
        client.set(KEY, value)
        async with reusable_session(NAME, manager=manager) as session:
            assert session.outcome == "corrupt"
            session.data["n"] = 1
        assert session.save_outcome == "skipped"
        assert client.get(KEY) == value
    assert set(manager.stats().breakers.values()) == {"closed"}


async def test_what_can_be_restored_can_be_saved(manager: SessionManager, redis_server: RedisServer) -> None:
    """What can be restored can be saved: nesting beyond that is corrupt at once, not an error at the end."""
    from tests.security.fuzz import forged

    deep = b"[" * 230 + b"]" * 230
    text = b'{"fingerprint":"%s","storage_state":{"cookies":[],"origins":[]},"data":{"deep":%s}}' % (
        NAME.encode(),
        deep,
    )
    with redis_server.client() as client:
        client.set(KEY, forged("-", text, "o"))
    async with reusable_session(NAME, manager=manager) as session:
        assert session.outcome == "corrupt"
        session.data["n"] = 1
    assert session.save_outcome == "saved"


async def test_keys_can_be_rotated(redis_server: RedisServer) -> None:
    """The first key encrypts, all decrypt. A visit rewrites under the new key. Without the old key it still opens."""
    old, new = b"o" * 32, b"n" * 32

    async def visit(keys: object, **data: int) -> str:
        async with SessionManager(redis_server.url, registry=None, encryption_keys=keys) as manager:
            async with reusable_session(NAME, manager=manager) as session:
                session.data.update(data)
            return session.outcome.value

    assert await visit([old], n=1) == "missing"
    assert await visit([new, old], n=2) == "reused"
    assert await visit(lambda: [new], n=3) == "reused"
    assert await visit([old]) == "corrupt"
    assert await visit(None) == "corrupt"
