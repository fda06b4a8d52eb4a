"""Sandboxes are prepared ahead for what is asked for, handed out once, and never to the cost of other recipes."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest
import pytest_asyncio

from sandboxes.node.errors import NodeError, StartFailed, UnknownBuild
from sandboxes.node.pool import Pool
from sandboxes.node.spec import Recipe, Resources
from tests.node import rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandboxes.node.members import Member
    from tests.node.rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")


def recipe(build: str) -> Recipe:
    """Return a recipe of its own for each name."""
    return Recipe(build, "container", "workstation", Resources(1000, 256, 64, 128))


@dataclass
class Workshop:
    """Makes members that are nothing but numbers."""

    made: list[str] = field(default_factory=list)
    discarded: list[str] = field(default_factory=list)
    broken: dict[str, NodeError] = field(default_factory=dict)

    async def make(self, wanted: Recipe) -> Member:
        """Make a member, or fail as told."""
        await asyncio.sleep(0)
        if wanted.build in self.broken:
            raise self.broken[wanted.build]
        self.made.append(wanted.build)
        return cast("Member", _Made(wanted.build))

    async def discard(self, member: Member) -> None:
        """Take note of a member that is given up."""
        self.discarded.append(cast("Any", member).build)


@dataclass
class _Made:
    build: str
    waiting: bool = True


@pytest_asyncio.fixture(loop_scope="module")
async def workshop() -> Workshop:
    """Return an empty workshop."""
    return Workshop()


@pytest_asyncio.fixture(loop_scope="module")
async def pool(workshop: Workshop) -> AsyncIterator[Pool]:
    """Return a pool of up to four members for each recipe."""
    pool = Pool(4, workshop.make, workshop.discard)
    pool.start()
    yield pool
    await pool.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def warm_node() -> AsyncIterator[Rig]:
    """Return a node that prepares two sandboxes of each recipe."""
    with rig.new_home() as home:
        async with rig.running_node(home, GATEHOUSE_POOL_SIZE="2") as running:
            yield running


async def counted(pool: Pool, **counts: int) -> None:
    """Return when exactly these members wait."""
    await rig.eventually(lambda: pool.counts == counts)


async def test_a_likely_recipe_is_prepared_before_it_is_asked_for(pool: Pool, workshop: Workshop) -> None:
    pool.warm(recipe("base"))
    await counted(pool, base=4)
    assert workshop.made == ["base"] * 4


async def test_of_a_less_likely_one_a_few_are_prepared(pool: Pool) -> None:
    pool.warm(recipe("base"), 2)
    await counted(pool, base=2)
    pool.warm(recipe("base"), 9)
    await counted(pool, base=4)


async def test_what_is_taken_is_made_again(pool: Pool, workshop: Workshop) -> None:
    pool.warm(recipe("base"))
    await counted(pool, base=4)
    first, second = await pool.take(recipe("base")), await pool.take(recipe("base"))
    assert first is not second
    await counted(pool, base=4)
    assert len(workshop.made) == 6


async def test_what_is_asked_for_again_and_again_is_prepared_in_growing_numbers(pool: Pool) -> None:
    for waiting in (1, 2, 4, 4):
        await pool.take(recipe("rare"))
        await counted(pool, rare=waiting)


async def test_nothing_is_handed_out_twice(pool: Pool) -> None:
    pool.warm(recipe("base"))
    taken = await asyncio.gather(*(pool.take(recipe("base")) for _ in range(50)))
    assert len({id(member) for member in taken}) == 50


async def test_dead_members_are_skipped(pool: Pool, workshop: Workshop) -> None:
    pool.warm(recipe("base"))
    await counted(pool, base=4)
    members = [cast("Any", member) for member in pool._shelves[recipe("base")].members]
    for member in members[:3]:
        member.waiting = False
    assert cast("Any", await pool.take(recipe("base"))) is members[3]
    assert workshop.discarded == ["base"] * 3


async def test_recipes_beyond_four_are_given_up(pool: Pool, workshop: Workshop) -> None:
    for name in ("a", "b", "c", "d"):
        pool.warm(recipe(name))
    await counted(pool, a=4, b=4, c=4, d=4)
    await pool.take(recipe("a"))
    await pool.take(recipe("e"))
    await counted(pool, a=4, c=4, d=4, e=1)
    assert workshop.discarded == ["b"] * 4


async def test_a_pool_of_size_zero_prepares_nothing(workshop: Workshop) -> None:
    pool = Pool(0, workshop.make, workshop.discard)
    pool.start()
    pool.warm(recipe("base"))
    await pool.take(recipe("base"))
    await asyncio.sleep(0.02)
    assert (workshop.made, pool.counts) == (["base"], {})
    await pool.stop()


async def test_stopping_gives_everything_up(pool: Pool, workshop: Workshop) -> None:
    pool.warm(recipe("base"))
    await counted(pool, base=4)
    await pool.stop()
    assert (workshop.discarded, pool.counts) == (["base"] * 4, {"base": 0})


async def test_an_unknown_build_is_forgotten_and_pushes_nothing_out(pool: Pool, workshop: Workshop) -> None:
    workshop.broken["nothing"] = UnknownBuild("There is no such build.")
    for name in ("a", "b", "c", "d"):
        pool.warm(recipe(name))
    await counted(pool, a=4, b=4, c=4, d=4)
    with pytest.raises(UnknownBuild):
        await pool.take(recipe("nothing"))
    await counted(pool, a=4, b=4, c=4, d=4)
    assert workshop.discarded == []


async def test_a_recipe_that_fails_does_not_hold_up_the_others(pool: Pool, workshop: Workshop) -> None:
    workshop.broken["broken"] = StartFailed("It can't be made.")
    pool.warm(recipe("base"))
    pool.warm(recipe("broken"))
    await counted(pool, base=4, broken=0)
    await pool.take(recipe("base"))
    await counted(pool, base=4, broken=0)


async def test_a_recipe_that_failed_is_tried_again(pool: Pool, workshop: Workshop) -> None:
    workshop.broken["shaky"] = StartFailed("It can't be made now.")
    pool.warm(recipe("shaky"))
    await asyncio.sleep(0.02)
    del workshop.broken["shaky"]
    await counted(pool, shaky=4)


async def test_a_prepared_sandbox_is_handed_out(warm_node: Rig) -> None:
    pool = warm_node.node.container.pool
    sandbox = await warm_node.start()
    await counted(pool, **{rig.base_build(): 1})
    member = pool._shelves[sandbox.spec.recipe].members[0]
    again = await warm_node.start(env={"NAME": "second"})
    assert again.state["pid"] == member.pid
    assert (await warm_node.run(again, "echo $NAME")).stdout == "second\n"


async def test_other_resources_are_another_recipe(warm_node: Rig) -> None:
    small = {"cpu_milli": 500, "memory_mib": 128, "disk_mib": 32, "pids": 64}
    sandbox = await warm_node.start(resources=small)
    done = await warm_node.run(sandbox, "df --output=size -BM / | tail -1")
    assert int(done.stdout.strip().rstrip("M")) <= 32


async def test_a_prepared_sandbox_that_died_is_never_handed_out(warm_node: Rig) -> None:
    pool = warm_node.node.container.pool
    shelf = pool._shelf(rig.spec("any").recipe)
    await rig.eventually(lambda: len(shelf.members) == shelf.target > 0)
    dead = {member.pid for member in shelf.members}
    for pid in dead:
        os.kill(pid, signal.SIGKILL)
    await rig.eventually(lambda: not any(member.waiting for member in shelf.members))
    sandbox = await warm_node.start()
    assert sandbox.state["pid"] not in dead
    assert (await warm_node.run(sandbox, "echo here")).stdout == "here\n"


async def test_a_zygote_that_died_is_started_again_by_the_next_order(warm_node: Rig) -> None:
    pool, zygote = warm_node.node.container.pool, warm_node.node.maker._zygote
    shelf = pool._shelf(rig.spec("any").recipe)
    await rig.eventually(lambda: len(shelf.members) == shelf.target > 0)
    waiting = shelf.members[0]
    assert zygote._process is not None
    killed = zygote._process
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    # What waits does not need it any more.
    assert waiting.waiting
    first = await warm_node.start()
    assert first.state["pid"] == waiting.pid
    others = [await warm_node.start() for _ in range(4)]
    assert zygote._process is not killed
    for sandbox in [first, *others]:
        assert (await warm_node.run(sandbox, "true")).exit_code == 0


async def test_a_template_s_own_defaults_are_prepared_at_the_start() -> None:
    with rig.new_home(default_pool=True) as home:
        async with rig.running_node(home, GATEHOUSE_POOL_SIZE="3") as node:
            await counted(node.node.container.pool, **{rig.base_build(): 3})
            await counted(node.node.process.pool, **{rig.base_build(): 2})
            # With a way out, as the sandboxes of a new tenant have it.
            recipes = [*node.node.container.pool._shelves, *node.node.process.pool._shelves]
            assert [recipe.network for recipe in recipes] == ["transparent", "transparent"]
        assert rig.leftovers(home).keys() <= {"loops"}


async def test_an_unreadable_template_keeps_nothing_from_starting() -> None:
    with rig.new_home() as home:
        (home / "templates" / "broken.current").write_text("no-such-build")
        async with rig.running_node(home, GATEHOUSE_POOL_SIZE="1") as node:
            assert (await node.run(await node.start(), "true")).exit_code == 0
