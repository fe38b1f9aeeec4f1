"""What every kernel does with queueing disciplines, and how far those of others are safe from us."""

from __future__ import annotations

import errno
from typing import Final, get_args

import pytest

from contract.kernels import World, apply, events_of, refusals
from polywan.config.model.shaping import LinkLayer, Shaping, ShapingAlgorithm
from polywan.core.plan.plan import ordered, removal
from polywan.core.shaping.changes import DelIfb, DelRedirect, DelTree, PutIfb, PutRedirect, PutTree, changes
from polywan.core.shaping.shapers import Shapers
from polywan.core.shaping.trees import Direction, tree
from polywan.core.state.events import ForeignStateChanged, KernelEvent, OwnStateChanged
from polywan.core.world.queues import DeviceQueues, Queues

pytestmark = pytest.mark.kernel

ALL = frozenset({"cake", "htb", "fq_codel", "prio", "ifb", "ingress", "mirred"})
IFB = "pw-ifb1"
LINKS: Final = get_args(LinkLayer)
ALGORITHMS: list[ShapingAlgorithm] = ["cake", "fq_codel", "prio"]


@pytest.fixture(autouse=True)
def complete(world: World) -> None:
    if lacking := read(world).lacking:
        pytest.skip(f"kernel lacks {', '.join(sorted(lacking))}")


def read(world: World) -> Queues:
    queues = world.kernel.read((), ALL).queues
    assert queues is not None
    return queues


def at(world: World, device: str = "up1") -> DeviceQueues:
    return read(world).devices[device]


def shapers(algorithm: ShapingAlgorithm = "cake", share: float = 0.95) -> Shapers:
    shaping = Shaping(algorithm=algorithm, share=share)
    trees = {
        "up1": tree(shaping, 10_000_000, Direction.UP),
        IFB: tree(shaping, 50_000_000, Direction.DOWN),
    }
    return Shapers(ifbs=frozenset({IFB}), trees=trees, redirects={"up1": IFB})


def shape(world: World, wanted: Shapers) -> None:
    apply(world, *ordered(changes(wanted, read(world))).ops)


def settled(world: World, wanted: Shapers) -> bool:
    queues = read(world)
    trees = {name: found.tree for name, found in queues.devices.items() if found.tree}
    redirects = {name: found.redirect for name, found in queues.devices.items() if found.redirect is not None}
    expected = {name: frozenset(parts) for name, parts in wanted.trees.items()}
    return (trees, redirects, queues.ifbs) == (expected, dict(wanted.redirects), dict.fromkeys(wanted.ifbs, True))


def test_without_being_asked_nobody_reads_queues(world: World) -> None:
    assert world.kernel.read(()).queues is None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_was_put_there_is_read_back(world: World, algorithm: ShapingAlgorithm) -> None:
    wanted = shapers(algorithm)
    shape(world, wanted)
    assert settled(world, wanted)


@pytest.mark.parametrize("after", ALGORITHMS)
@pytest.mark.parametrize("before", ALGORITHMS)
def test_any_tree_can_follow_any_other(world: World, before: ShapingAlgorithm, after: ShapingAlgorithm) -> None:
    shape(world, shapers(before))
    wanted = shapers(after, 0.8)
    shape(world, wanted)
    assert settled(world, wanted)
    shape(world, Shapers())
    assert settled(world, Shapers())


def test_an_ifb_of_ours_is_no_link_of_the_world(world: World) -> None:
    shape(world, shapers())
    assert IFB not in world.kernel.observe().links


def test_removal_takes_all_of_it(world: World) -> None:
    before = read(world)
    shape(world, shapers("prio"))
    apply(world, *removal(world.kernel.read((), ALL), ()).ops)
    assert read(world) == before


def test_a_root_of_others_is_neither_replaced_nor_removed(world: World) -> None:
    world.add_queue("up1", root="fq_codel")
    there = at(world).foreign_root
    assert there.startswith("fq_codel ")
    assert refusals(world, PutTree("up1", shapers().trees["up1"])) == [errno.EEXIST]
    world.kernel.apply(removal(world.kernel.read((), ALL), ()))
    assert at(world).foreign_root == there


@pytest.mark.parametrize("kind", ["ingress", "clsact"])
def test_an_ingress_of_others_is_neither_replaced_nor_removed(world: World, kind: str) -> None:
    world.add_queue("up1", ingress=kind)
    assert at(world).foreign_ingress == kind
    apply(world, PutIfb(IFB))
    assert refusals(world, PutRedirect("up1", IFB)) == [errno.EEXIST]
    world.kernel.apply(removal(world.kernel.read((), ALL), ()))
    assert at(world).foreign_ingress == kind


@pytest.mark.parametrize("handle", ["6000:", "6005:"])
def test_a_root_of_others_with_a_handle_of_ours_is_theirs(world: World, handle: str) -> None:
    world.add_queue("up1", root="fq_codel", handle=handle)
    assert at(world).foreign_root == f"fq_codel {handle}"
    assert not read(world).ours
    assert world.kernel.apply(removal(world.kernel.read((), ALL), ())).done == 0


def test_a_device_that_was_made_anew_keeps_what_others_have_put_there(world: World) -> None:
    world.add_queue("up1", ingress="ingress")
    apply(world, DelRedirect("up1", at(world).index + 1000))
    assert at(world).foreign_ingress == "ingress"


def test_a_clsact_of_others_is_not_taken_for_our_ingress(world: World) -> None:
    world.add_queue("up1", ingress="clsact")
    apply(world, DelRedirect("up1", at(world).index))
    assert at(world).foreign_ingress == "clsact"


def test_a_device_of_others_with_the_name_of_an_ifb_gets_nothing(world: World) -> None:
    world.add_link(IFB)
    assert read(world).ifbs == {}
    assert IFB in world.kernel.observe().links
    parts = shapers().trees[IFB]
    assert refusals(world, PutIfb(IFB), PutTree(IFB, parts), PutRedirect("up1", IFB)) == [errno.EEXIST] * 3
    apply(world, DelIfb(IFB))
    queues = read(world)
    assert not queues.devices[IFB].tree
    assert queues.devices["up1"].redirect is None


def test_an_ifb_of_ours_is_known_by_whatever_name(world: World) -> None:
    shape(world, shapers())
    world.rename_ifb(IFB, "other0")
    assert read(world).ifbs == {"other0": True}
    assert at(world).redirect == "other0"
    shape(world, shapers())
    assert settled(world, shapers())
    world.rename_ifb(IFB, "other0")
    apply(world, *removal(world.kernel.read((), ALL), ()).ops)
    assert not read(world).ours
    assert "other0" not in read(world).devices


def test_an_ifb_is_ours_as_soon_as_it_is_there(world: World) -> None:
    apply(world, PutIfb(IFB))
    assert read(world).ifbs == {IFB: True}


def test_a_chain_of_others_at_the_hook_ingress_is_seen_and_told(world: World) -> None:
    assert at(world).ingress_chain == ""
    assert ForeignStateChanged("chain") in events_of(world, lambda: world.add_ingress_chain("up1"))
    assert at(world).ingress_chain == "chain filter of table netdev guard"
    assert at(world, "up2").ingress_chain == ""


def test_what_is_gone_already_counts_as_removed_and_what_has_no_device_is_refused(world: World) -> None:
    index = at(world).index
    apply(world, DelRedirect("up1", index), DelTree("up1", index), DelIfb(IFB))
    apply(world, DelTree("gone0", 7), DelRedirect("gone0", 7))
    assert refusals(world, PutTree("gone0", shapers().trees["up1"])) == [errno.ENODEV]
    assert refusals(world, PutRedirect("up1", IFB)) == [errno.ENODEV]


def test_a_device_that_goes_takes_its_queues_along_and_leaves_the_ifb(world: World) -> None:
    shape(world, shapers())
    world.remove_link("up1")
    queues = read(world)
    assert "up1" not in queues.devices
    assert queues.ifbs == {IFB: True}
    assert queues.devices[IFB].tree == frozenset(shapers().trees[IFB])


def test_an_ifb_that_goes_leaves_a_redirect_to_nowhere(world: World) -> None:
    shape(world, shapers())
    world.delete_ifb(IFB)
    assert read(world).ifbs == {}
    assert at(world).redirect == ""
    shape(world, shapers())
    assert settled(world, shapers())


@pytest.mark.parametrize("wanted", [True, False])
def test_changes_of_others_are_told_to_whoever_wants_to_hear_whoever_reads(world: World, wanted: bool) -> None:
    shape(world, shapers())

    def change() -> None:
        world.kernel.hear_queues(wanted=True)
        world.kernel.hear_queues(wanted=wanted)
        world.kernel.read(())
        read(world)
        world.add_queue("up2", root="fq_codel")
        world.kernel.read(())
        world.add_queue("up1", root="")

    found: list[KernelEvent] = events_of(world, change)
    assert (ForeignStateChanged("qdisc") in found) is wanted
    assert (OwnStateChanged("qdisc") in found) is wanted


def test_what_we_put_there_ourselves_is_not_told(world: World) -> None:
    def ours() -> None:
        world.kernel.hear_queues(wanted=True)
        shape(world, shapers())
        shape(world, shapers("prio"))

    assert [event for event in events_of(world, ours) if isinstance(event, OwnStateChanged)] == []


@pytest.mark.parametrize("after", LINKS)
def test_a_line_of_another_kind_leaves_nothing_of_the_one_before(world: World, after: LinkLayer) -> None:
    for link in ("pppoe-llcsnap", after):
        wanted = Shapers(trees={"up1": tree(Shaping(link=link), 10_000_000, Direction.UP)})
        shape(world, wanted)
        assert settled(world, wanted)
