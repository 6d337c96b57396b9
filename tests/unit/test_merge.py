"""The three-way merge: no update of either holder is lost, and nothing deleted comes back.

The properties work on a flat model of a document, slot -> value, where the right answer of a merge is one line.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from session_reuse._state.merge import merge_documents, merge_storage_states, same_document, without_expired

Slot = tuple[str, ...]
Model = dict[Slot, Any]

HOSTS = ("https://a.example", "https://b.example")
NAMES = ("sid", "__proto__", "constructor")
PARTITIONS = ("", "https://top.example")
DATABASE_FORMS = ("indexedDB", "indexedDBRich")
"""One database stands in one or the other, as its values need it."""

SLOTS: list[Slot] = [
    *(("cookie", name, host, partition) for name in NAMES for host in HOSTS for partition in PARTITIONS),
    *(
        (section, host, name)
        for section in ("localStorage", "sessionStorage", "indexedDB")
        for host in HOSTS
        for name in NAMES
    ),
    *(("unit", host, "opfs") for host in HOSTS),
    *(("top", name) for name in NAMES),
    *(("data", name) for name in NAMES),
]

models = st.dictionaries(st.sampled_from(SLOTS), st.integers(1, 3), max_size=14)
edits = st.dictionaries(st.sampled_from(SLOTS), st.none() | st.integers(1, 3), max_size=8)
quick = settings(max_examples=150, deadline=None)


def edited(model: Model, changes: Model) -> Model:
    """Return a model with changes applied. None deletes."""
    return {slot: value for slot, value in {**model, **changes}.items() if value is not None}


def cookie(name: str, host: str, partition: str, value: Any) -> dict[str, Any]:
    """Return a cookie, partitioned or not."""
    made = {
        "name": name,
        "value": str(value),
        "domain": host[8:],
        "path": "/",
        "expires": 2_000_000_000,
        "httpOnly": True,
    }
    if partition:
        made["partitionKey"] = partition
    return made


def document(model: Model) -> dict[str, Any]:
    """Return the document that a flat model stands for, in the model's own order."""
    made: dict[str, Any] = {"storage_state": {"cookies": [], "origins": []}, "data": {}}
    state, entries = made["storage_state"], {}
    for (kind, *names), value in model.items():
        if kind == "cookie":
            state["cookies"].append(cookie(*names, value))
        elif kind == "top":
            state[names[0]] = {"v": [value]}
        elif kind == "data":
            made["data"][names[0]] = {"v": [value]}
        else:
            entry = entries.setdefault(names[0], {"origin": names[0], "localStorage": []})
            section = {"unit": "opfs", "indexedDB": DATABASE_FORMS[value % 2]}.get(kind, kind)
            item = {"name": names[1], **({"stores": [value]} if kind == "indexedDB" else {"value": str(value)})}
            entry.setdefault(section, []).append(item)
    state["origins"] = list(entries.values())
    return made


def flat(made: dict[str, Any]) -> Model:
    """Return the flat model of a document: the way back from `document`."""
    state, model = made["storage_state"], {}
    for entry in state["cookies"]:
        key = ("cookie", entry["name"], "https://" + entry["domain"], entry.get("partitionKey", ""))
        model[key] = int(entry["value"])
    for entry in state["origins"]:
        for section in ("localStorage", "sessionStorage", *DATABASE_FORMS, "opfs"):
            for item in entry.get(section, []):
                kind = {"opfs": "unit", "indexedDBRich": "indexedDB"}.get(section, section)
                assert (kind, entry["origin"], item["name"]) not in model
                model[kind, entry["origin"], item["name"]] = int(item.get("value") or item["stores"][0])
    model |= {("top", name): state[name]["v"][0] for name in NAMES if name in state}
    return model | {("data", name): value["v"][0] for name, value in made["data"].items()}


def merged(base: Model, mine: Model, theirs: Model) -> dict[str, Any]:
    """Return the merge of three models, as a document."""
    return merge_documents(document(base), document(mine), document(theirs))


@quick
@given(models, edits, edits)
def test_no_update_of_one_side_is_lost(base: Model, my_edits: Model, their_edits: Model) -> None:
    """Every item is mine where I changed it, deletions included, and theirs everywhere else."""
    mine, theirs = edited(base, my_edits), edited(base, their_edits)
    changed = {slot: mine.get(slot) for slot in SLOTS if mine.get(slot) != base.get(slot)}
    assert flat(merged(base, mine, theirs)) == edited(theirs, changed)


@quick
@given(models, edits)
def test_a_deletion_is_not_undone_by_the_other_side(base: Model, their_edits: Model) -> None:
    """What I deleted stays deleted, even where the other side changed it: a logout is not taken back."""
    result = flat(merged(base, {}, edited(base, their_edits)))
    assert not result.keys() & base.keys()
    assert result == {slot: value for slot, value in edited(base, their_edits).items() if slot not in base}


@quick
@given(models, edits, edits)
def test_a_repeated_save_changes_nothing(base: Model, my_edits: Model, their_edits: Model) -> None:
    """A save that is applied again to its own result gives the same result."""
    mine = document(edited(base, my_edits))
    once = merge_documents(document(base), mine, document(edited(base, their_edits)))
    assert same_document(merge_documents(document(base), mine, once), once)


@quick
@given(models, edits, edits)
def test_the_order_of_two_saves_does_not_matter_without_a_conflict(base: Model, first: Model, second: Model) -> None:
    """Where the changed items differ, both holders' saves commute."""
    second = {slot: value for slot, value in second.items() if slot not in first}
    one, two = edited(base, first), edited(base, second)
    assert same_document(merged(base, one, two), merged(base, two, one))


@quick
@given(models, models)
def test_a_side_without_changes_gives_way(base: Model, other: Model) -> None:
    """With one side unchanged the result is the other side, whole."""
    assert same_document(merged(base, base, other), document(other))
    assert same_document(merged(base, other, base), document(other))


@quick
@given(models, models, models)
def test_a_merge_neither_mutates_nor_shares_its_inputs(base: Model, mine: Model, theirs: Model) -> None:
    """Inputs stay as they were, and whatever is later done to the result does not reach them."""
    inputs = [document(base), document(mine), document(theirs)]
    before = copy.deepcopy(inputs)
    results = [merge_documents(*inputs), merge_storage_states(*(made["storage_state"] for made in inputs))]
    assert inputs == before
    assert not set(containers(results)) & set(containers(inputs))


def containers(value: Any) -> list[int]:
    """Return the addresses of all dicts and lists of a JSON value."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return [] if items is None else [id(value), *(address for item in items for address in containers(item))]


@quick
@given(models, models, models)
def test_the_result_is_the_same_every_time(base: Model, mine: Model, theirs: Model) -> None:
    """Two merges of the same inputs are equal to the last detail, order included."""
    assert repr(merged(base, mine, theirs)) == repr(merged(base, mine, theirs))


@quick
@given(models, st.randoms(use_true_random=False))
def test_another_order_is_not_taken_for_a_change(model: Model, random: Any) -> None:
    """A capture that lists the same cookies, origins and items in another order is the same document."""
    shuffled = list(model.items())
    random.shuffle(shuffled)
    assert same_document(document(model), document(dict(shuffled)))


@quick
@given(models, models)
def test_a_change_is_never_taken_for_none(one: Model, two: Model) -> None:
    """Documents are the same only when every item is."""
    assert same_document(document(one), document(two)) == (one == two)


def state(*cookies: dict[str, Any], **rest: Any) -> dict[str, Any]:
    """Return a storage state of cookies and other top-level keys."""
    return {"cookies": list(cookies), "origins": [], **rest}


def wrapped(storage_state: Any, **data: Any) -> dict[str, Any]:
    """Return a document."""
    return {"storage_state": storage_state, "data": data}


SID = {
    "name": "sid",
    "value": "1",
    "domain": "a.example",
    "path": "/",
    "expires": 2e9,
    "httpOnly": True,
    "secure": True,
}


def test_a_conflict_goes_to_the_later_save() -> None:
    """Both changed one item, or one changed what the other deleted: mine stands."""
    base, one, two = ({"cookie": SID | {"value": value}} for value in "123")
    both = merge_storage_states(state(base["cookie"]), state(one["cookie"]), state(two["cookie"]))
    assert both["cookies"][0]["value"] == "2"
    assert merge_storage_states(state(base["cookie"]), state(one["cookie"]), state())["cookies"][0]["value"] == "2"
    assert merge_storage_states(state(base["cookie"]), state(), state(two["cookie"]))["cookies"] == []


def test_the_order_is_theirs_and_then_what_is_new_in_mine() -> None:
    """The order does not depend on hashing: first as theirs lists them, then my own in my order."""
    made = [SID | {"name": name} for name in "abcdef"]
    result = merge_storage_states(state(), state(made[5], made[0], made[4]), state(made[2], made[0], made[1]))
    assert [entry["name"] for entry in result["cookies"]] == ["c", "a", "b", "f", "e"]


def test_another_tools_view_of_a_cookie_does_not_overwrite_a_real_change() -> None:
    """What Playwright drops of a CDP cookie is no change of mine, so their renewed value stands."""
    raw = SID | {"expires": 2e9 + 0.9, "size": 4, "session": False, "priority": "High", "sourceScheme": "Secure"}
    captured = SID | {"sameSite": "Lax"}
    renewed = SID | {"value": "renewed"}
    assert merge_storage_states(state(raw), state(captured), state(renewed))["cookies"] == [renewed]
    assert same_document(wrapped(state(raw)), wrapped(state(captured)))


@pytest.mark.parametrize(
    "change", [{"value": "2"}, {"expires": 2e9 + 60}, {"secure": False}, {"sameSite": "None"}, {"note": 1}]
)
def test_a_real_change_of_a_cookie_is_saved(change: dict[str, Any]) -> None:
    """A renewed expiry, a flag and another tool's own key are changes too."""
    assert not same_document(wrapped(state(SID)), wrapped(state(SID | change)))
    assert merge_storage_states(state(SID), state(SID | change), state(SID))["cookies"] == [SID | change]


def test_one_cookie_in_two_notations_is_one_cookie() -> None:
    """CDP's partition and Playwright's are the same key. Another site or ancestor bit is another cookie."""
    cdp = SID | {"partitionKey": {"topLevelSite": "https://t", "hasCrossSiteAncestor": True}}
    plain = SID | {"partitionKey": "https://t", "_crHasCrossSiteAncestor": True, "value": "2"}
    others = [SID, plain | {"_crHasCrossSiteAncestor": False}, plain | {"partitionKey": "https://u"}]
    result = merge_storage_states(state(cdp, *others), state(plain, *others), state(cdp, *others))
    assert result["cookies"] == [plain, *others]


def test_an_origin_left_with_nothing_is_dropped() -> None:
    """Each side deletes one half of an origin. No empty shell stays to be visited at each restore."""
    item = [{"name": "a", "value": "b"}]
    full = {"origin": HOSTS[0], "localStorage": item, "sessionStorage": item}
    one, two = full | {"localStorage": []}, full | {"sessionStorage": []}
    states = [{"cookies": [], "origins": [entry]} for entry in (full, one, two)]
    assert merge_storage_states(*states) == state()


def test_the_notes_of_a_capture_are_not_taken_for_a_change() -> None:
    """A later capture of the same state is unchanged. Another account of what was lost is not."""
    before = state(SID, session_reuse={"v": 1, "captured_at": 1, "source": "mirror", "lost": []})
    later = state(SID, session_reuse={"v": 1, "captured_at": 2, "source": "merge", "lost": []})
    assert same_document(wrapped(before), wrapped(later))
    later["session_reuse"]["lost"] = ["blob"]
    assert not same_document(wrapped(before), wrapped(later))


@pytest.mark.parametrize("section", ["indexedDB", "indexedDBRich"])
def test_databases_of_one_origin_are_merged_one_by_one(section: str) -> None:
    """Two agents that have changed two databases of an origin lose neither change."""
    base, mine, theirs = (
        state(
            origins=[
                {"origin": HOSTS[0], "localStorage": [], section: [{"name": "x", "dump": x}, {"name": "y", "dump": y}]}
            ]
        )
        for x, y in (("x0", "y0"), ("x1", "y0"), ("x0", "y1"))
    )
    (merged,) = merge_storage_states(base, mine, theirs)["origins"]
    assert [database["dump"] for database in merged[section]] == ["x1", "y1"]


@pytest.mark.parametrize("before", DATABASE_FORMS)
@pytest.mark.parametrize("after", DATABASE_FORMS)
def test_a_database_is_one_item_in_either_form(before: str, after: str) -> None:
    """A renewal with a value that JSON lacks undoes no logout, and my change of the database replaces it."""
    base, mine, theirs = (
        state(origins=[{"origin": HOSTS[0], "localStorage": [], form: [{"name": "auth", "dump": dump}]}])
        for form, dump in ((before, "old"), (before, "mine"), (after, "theirs"))
    )
    assert merge_storage_states(base, state(), theirs)["origins"] == []
    assert merge_storage_states(base, mine, theirs) == mine
    assert merge_storage_states(base, base, theirs) == theirs


def test_true_is_not_one() -> None:
    """A flag that became a number, or the other way round, is a change, at any depth."""
    assert not same_document(wrapped(state(), a=[{"b": True}]), wrapped(state(), a=[{"b": 1}]))
    assert same_document(wrapped(state(), a=1), wrapped(state(), a=1.0))
    result = merge_documents(wrapped(state(), a=True), wrapped(state(), a=1), wrapped(state(), a=True))
    assert result["data"]["a"] is not True


def test_other_keys_of_a_document_are_not_lost() -> None:
    """A key that a later version adds to a document is merged as a unit, and compared."""
    base, one = wrapped(state()), {**wrapped(state()), "added": [1]}
    assert merge_documents(base, base, one) == merge_documents(base, one, base) == one
    assert not same_document(base, one)


def test_duplicates_do_not_multiply() -> None:
    """Of items listed twice the last wins. An origin listed twice is one origin with the items of both."""
    twice = state(SID, SID | {"value": "last"})
    twice["origins"] = [
        {"origin": HOSTS[0], "localStorage": [{"name": "a", "value": "1"}, {"name": "b", "value": "1"}]},
        {"origin": HOSTS[0], "localStorage": [{"name": "a", "value": "last"}]},
    ]
    result = merge_storage_states({}, twice, twice)
    assert [entry["value"] for entry in result["cookies"]] == ["last"]
    (entry,) = result["origins"]
    assert {item["name"]: item["value"] for item in entry["localStorage"]} == {"a": "last", "b": "1"}


ODD: list[Any] = [None, [], {}, "x", 7, {"storage_state": None, "data": None}, wrapped([]), wrapped({"cookies": None})]
ODD += [wrapped({"cookies": [None, 3, {}, {"name": [], "value": {}, "domain": 1}], "origins": {}})]
ODD += [
    wrapped({"cookies": [SID | {"path": [], "partitionKey": [{}], "expires": {}}], "origins": [None, {"origin": []}]})
]
ODD += [
    wrapped({"origins": [{"origin": "a", "localStorage": None, "indexedDB": [[], {"name": {}}], "x": {1: [set()]}}]})
]
ODD += [wrapped({"session_reuse": 3}), wrapped(state(), a=float("nan"))]


@pytest.mark.parametrize("theirs", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("mine", ODD, ids=range(len(ODD)))
def test_an_odd_document_does_not_end_an_agent(mine: Any, theirs: Any) -> None:
    """Whatever stands where a section should, the merge gives a document with all sections."""
    result = merge_documents(theirs, mine, wrapped(state(SID)))
    assert isinstance(result["storage_state"]["cookies"], list)
    assert isinstance(result["data"], dict)
    same_document(mine, theirs)


def test_deep_and_circular_values_end_neither_in_a_crash_nor_in_a_loop() -> None:
    """Nesting deeper than Python's recursion limit is compared and copied. A cycle is left for the codec to refuse."""
    deep: list[Any] = []
    for _ in range(50_000):
        deep = [deep]
    circular: dict[str, Any] = {}
    circular["self"] = circular
    result = merge_documents(wrapped(state()), wrapped(state(), circular=circular), wrapped(state(), deep=deep))
    assert result["data"]["circular"]["self"] is result["data"]["circular"]
    assert same_document(wrapped(state(), deep=deep), wrapped(state(), deep=result["data"]["deep"]))


@pytest.mark.parametrize("hosts", [10_000, 1])
def test_ten_thousand_origins_do_not_delay_the_exit(hosts: int) -> None:
    """The merge is linear, for many origins and for one listed many times (0.2 s, measured 2026-11-22)."""

    def hostile(value: str) -> dict[str, Any]:
        entries = [(f"https://h{n % hosts}.example", {"name": f"k{n}", "value": value}) for n in range(10_000)]
        return {"cookies": [], "origins": [{"origin": host, "localStorage": [item]} for host, item in entries]}

    base, mine, theirs = hostile("1"), hostile("1"), hostile("2")
    start = time.perf_counter()
    result = merge_storage_states(base, mine, theirs)
    assert time.perf_counter() - start < 10
    assert len(result["origins"]) == hosts
    assert sum(len(entry["localStorage"]) for entry in result["origins"]) == 10_000


def test_an_expired_cookie_that_another_agent_has_deleted_stays_deleted() -> None:
    """The agent that still has it has not changed it: its unchanged copy is no new cookie."""
    cookie = {"name": "sid", "value": "1", "domain": "shop.example", "path": "/", "expires": 5.0}
    held = {"fingerprint": "a", "data": {}, "storage_state": {"cookies": [cookie], "origins": []}}
    empty = {"fingerprint": "a", "data": {}, "storage_state": {"cookies": [], "origins": []}}
    for mine, theirs in ((held, empty), (empty, held)):
        base = without_expired(held, mine, theirs, now=10.0)  # type: ignore[arg-type]
        assert merge_documents(base, mine, theirs)["storage_state"]["cookies"] == []  # type: ignore[arg-type]
