"""What `reload` says that it has put in force."""

from __future__ import annotations

import pytest

from polywan.api.running import Reloaded
from polywan.cli.reload import text
from polywan.config import load_text
from polywan.core.status.config_changes import changes

BEFORE = """\
[uplinks.fibre]
interface = "wan1"
[uplinks.lte]
interface = "wan2"
[policies.web]
tiers = [["fibre"], ["lte"]]
[[rules]]
to = "192.0.2.0/24"
policy = "web"
"""


def rewritten(*pairs: tuple[str, str]) -> str:
    done = BEFORE
    for old, new in pairs:
        assert old in done
        done = done.replace(old, new)
    return done


@pytest.mark.parametrize(
    ("after", "lines"),
    [
        (BEFORE + "# a comment\n", ()),
        (BEFORE + '[health]\ninterval = "2s"\n', ("health settings changed for fibre, lte (interval)",)),
        (
            BEFORE + '[uplinks.lte.health]\ntargets = ["192.0.2.1"]\n',
            ("health settings changed for lte (targets)",),
        ),
        (rewritten(("lte", "mobile")), ("lte is now called mobile", "tiers changed for policy web")),
        (rewritten(('"wan1"', '"wan9"')), ("fibre is now wan9 instead of wan1",)),
        (rewritten(('"wan1"', '"wan1"\nweight = 3')), ("weight changed for fibre",)),
        (BEFORE + '[uplinks.dsl]\ninterface = "wan3"\n', ("dsl is new",)),
        (
            rewritten(('[uplinks.lte]\ninterface = "wan2"\n', ""), (', ["lte"]', "")),
            ("lte is removed", "tiers changed for policy web"),
        ),
        (rewritten(("192.0.2.0/24", "192.0.2.0/25")), ("rule 1 changed",)),
        (BEFORE + '[[rules]]\nuplink = "lte"\n', ("2 rules instead of 1",)),
        (BEFORE + '[policies.mail]\ntiers = [["lte"]]\n', ("policy mail is new",)),
        (BEFORE + "[global]\nforwarding = true\n", ("forwarding of [global] changed",)),
    ],
)
def test_every_difference_is_named(after: str, lines: tuple[str, ...]) -> None:
    assert changes(load_text(BEFORE), load_text(after)) == lines


def test_one_rule_is_counted_as_one() -> None:
    after = load_text(BEFORE)
    assert changes(load_text(BEFORE.partition("[[rules]]")[0]), after) == ("1 rule instead of 0",)


def test_names_that_are_exchanged_are_told_as_such() -> None:
    after = rewritten(('"wan1"', '"x"'), ('"wan2"', '"wan1"'), ('"x"', '"wan2"'))
    assert changes(load_text(BEFORE), load_text(after)) == ("lte is now called fibre", "fibre is now called lte")


def test_a_file_that_is_all_different_is_not_told_line_by_line() -> None:
    many = "".join(f'[uplinks.u{n}]\ninterface = "m{n}"\n' for n in range(20))
    lines = changes(load_text(BEFORE), load_text(many))
    assert len(lines) == 9
    assert lines[-1].endswith("more changes")


@pytest.mark.parametrize(
    ("changed", "what", "said"),
    [
        (False, (), "nothing to change"),
        (
            False,
            ("health settings changed for fibre (interval)",),
            "in force: health settings changed for fibre (interval); nothing to change in the kernel",
        ),
        (True, ("weight changed for fibre",), "in force: weight changed for fibre; generation 4, 1.5 ms"),
        (True, (), "in force: generation 4, 1.5 ms"),
    ],
)
def test_the_answer_says_what_is_in_force(changed: bool, what: tuple[str, ...], said: str) -> None:
    assert text(Reloaded(generation=4, changed=changed, ms=1.5, changes=what)) == said
