import os
import socket
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from polywan import files
from polywan.config import Config, ConfigError, Problem, load, load_text
from polywan.config.loading.toml_lines import key_lines

FIBRE = '[uplinks.fibre]\ninterface = "eth1"\n'
LTE = '[uplinks.lte]\ninterface = "wwan0"\n'
BOTH = FIBRE + LTE


def problems(text: str) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    return list(caught.value.problems)


def problem(text: str) -> Problem:
    found = problems(text)
    assert len(found) == 1, found
    return found[0]


def file_problems(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return [str(p).replace(str(path.parent), "DIR") for p in caught.value.problems]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def files(main: str | bytes, **drop_ins: str) -> Path:
        path = tmp_path / "polywan.toml"
        path.write_bytes(main if isinstance(main, bytes) else main.encode())
        for name, text in drop_ins.items():
            (tmp_path / "conf.d").mkdir(exist_ok=True)
            (tmp_path / "conf.d" / f"{name}.toml").write_text(text, encoding="utf-8")
        return path

    return files


def test_two_uplinks_are_a_configuration() -> None:
    assert list(load_text(BOTH).uplinks) == ["fibre", "lte"]


def test_every_problem_is_reported_at_once_in_the_order_of_the_file() -> None:
    text = FIBRE + 'weight = 0\nmetred = true\n[[rules]]\naction = "bypas"\n[global]\npriority = 0\n'
    assert [(p.where, p.key) for p in problems(text)] == [
        ("config:3", "uplinks.fibre.weight"),
        ("config:4", "uplinks.fibre.metred"),
        ("config:6", "rules[0].action"),
        ("config:8", "global.priority"),
    ]


def test_a_misspelt_key_gets_a_suggestion() -> None:
    found = problem(FIBRE + "metred = true\n")
    assert found == Problem("config:3", "uplinks.fibre.metred", "unknown key", 'did you mean "metered"?')


def test_the_word_of_another_tool_gets_a_suggestion() -> None:
    assert problem(BOTH + '[[rules]]\nuplink = "lte"\nsrc = "10.0.0.0/8"\n').hint == 'did you mean "from"?'


def test_a_key_like_no_other_gets_the_list() -> None:
    assert problem("frob = 1\n" + FIBRE).hint == "known here: global, health, hooks, policies, rules, uplinks"


def test_a_missing_interface_is_placed_at_its_uplink() -> None:
    found = problem("\n[uplinks.fibre]\nweight = 3\n")
    assert (found.where, found.key) == ("config:2", "uplinks.fibre.interface")
    assert found.message.startswith("is missing; expected a network device")


def test_a_wrong_value_says_what_was_expected_and_found() -> None:
    assert problem(FIBRE + 'weight = "3"\n') == Problem(
        "config:3",
        "uplinks.fibre.weight",
        'expected a whole number from 1 to 1000, got "3"',
        "write it without quotes",
    )


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('health = "fast"', "uplinks.fibre.health"),
        ("bandwidth = [1]", "uplinks.fibre.bandwidth"),
        ('bandwidth = "fast"', "uplinks.fibre.bandwidth"),
        ('bandwidth = {down = "1Mbit"}', "uplinks.fibre.bandwidth.up"),
        ('nat = {snat = "x"}', "uplinks.fibre.nat.snat"),
        ('nat = {dnat = "192.0.2.1"}', "uplinks.fibre.nat"),
        ("families = []", "uplinks.fibre.families"),
        ('families = ["ipv4", "ipx"]', "uplinks.fibre.families[1]"),
        ('health.targets = "dns.google"', "uplinks.fibre.health.targets"),
        ("weight = 2024-01-01", "uplinks.fibre.weight"),
    ],
)
def test_a_problem_names_the_innermost_key_that_stands_in_the_file(line: str, key: str) -> None:
    assert (problem(FIBRE + line).where, problem(FIBRE + line).key) == ("config:3", key)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uplinks = 5", "expected tables [uplinks.NAME], got 5"),
        ("rules = 5\n" + FIBRE, "expected a list of rules, got 5"),
        ("rules = [5]\n" + FIBRE, "expected a table, got 5"),
        ("health = []\n" + FIBRE, "expected a table, got an empty list"),
        ("[uplinks]\nfibre = 5", "expected a table, got 5"),
        ('[uplinks]\ninterface = "eth1"', "is outside a table, expected [uplinks.NAME] before it"),
        (
            '[uplinks."my link"]\ninterface = "eth1"',
            'expected a name: a letter, then up to 30 letters, digits, _ or -, got "my link"',
        ),
    ],
)
def test_wrong_shapes_are_explained(text: str, message: str) -> None:
    assert problem(text).message == message


def test_a_rule_with_single_brackets_is_told_to_have_two() -> None:
    assert problem(BOTH + '[rules]\nuplink = "lte"').hint == "write [[rules]] with two brackets before each rule"


def test_a_file_without_uplinks_gets_an_example_that_loads() -> None:
    found = problem("# nothing yet\n")
    assert found.message == "there are no uplinks; at least one is needed, for example"
    assert len(found.hint.strip().splitlines()) == 5
    assert list(load_text(found.hint).uplinks) == ["fibre", "lte"]


@pytest.mark.parametrize(
    ("text", "where", "hint"),
    [
        (FIBRE + "metered = yes\n", "config:3", 'text needs quotes, for example interface = "eth1"'),
        (FIBRE + FIBRE, "config:3", "this table is defined twice: merge the two"),
        (FIBRE + 'interface = "eth2"\n', "config:3", "this key is set twice: keep one"),
        (FIBRE + "weight\n", "config:3", "write a key and its value as key = value"),
        (FIBRE + "weight = 1 metered = true\n", "config:3", "write each key = value on its own line"),
    ],
)
def test_a_syntax_error_has_its_line_and_a_way_out(text: str, where: str, hint: str) -> None:
    found = problem(text)
    assert (found.where, found.key, found.hint) == (where, "syntax", hint)
    assert found.message.startswith("is not valid TOML at column ")


@pytest.mark.parametrize("length", range(1, len(FIBRE) - 1))
def test_a_half_written_file_is_refused(length: int) -> None:
    assert problems(FIBRE[:length])


def test_a_file_that_ends_within_a_value_asks_whether_it_was_written_to_its_end() -> None:
    found = problem('[uplinks.fibre]\ninterface = "eth1')
    assert (found.where, "is the file complete" in found.hint) == ("config:2", True)


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 5000,
        "x = " + "1" * 5000,
        "[uplinks.fibre]\ninterface = 0x" + "f" * 5000,
        "[" + "a." * 5000 + "a]\n",
        "x = '\ud800'\n",
        "\ud800",
        "x = '''\n'''\n\0",
        '["\\u0000\\u001b[31m"]\n',
    ],
    ids=range(8),
)
def test_hostile_text_is_a_problem_and_never_a_crash(text: str) -> None:
    for found in problems(text):
        assert found.message.isprintable()
        assert found.key.isprintable()


def test_drop_ins_are_merged_key_by_key_and_rules_are_appended(write: Callable[..., Path]) -> None:
    config = load(
        write(
            FIBRE + 'weight = 1\n[[rules]]\nuplink = "fibre"\n',
            b_late='[uplinks.fibre]\nweight = 3\n[[rules]]\naction = "block"\n',
            a_early='[uplinks.fibre]\nweight = 2\nmetered = true\n[[rules]]\naction = "bypass"\n'
            + LTE
            + "weight = 1\n",
        )
    )
    fibre = config.uplinks["fibre"]
    assert (fibre.interface, fibre.weight, fibre.metered) == ("eth1", 3, True)
    assert [rule.action for rule in config.rules] == [None, "bypass", "block"]


def test_a_problem_is_placed_in_the_drop_in_it_comes_from(write: Callable[..., Path]) -> None:
    path = write(
        FIBRE + '[[rules]]\nuplink = "fibre"\n',
        extra='\n[[rules]]\nuplink = "fibre"\n[[rules]]\nuplink = "fiber"\n[uplinks.fibre]\nweight = 0\n',
    )
    assert file_problems(path) == [
        'DIR/conf.d/extra.toml:5: rule 3: uplink: there is no uplink "fiber" (did you mean "fibre"?)',
        "DIR/conf.d/extra.toml:7: uplinks.fibre.weight: expected a whole number from 1 to 1000, got 0",
    ]


def test_syntax_errors_of_all_files_are_reported_together(write: Callable[..., Path]) -> None:
    found = file_problems(write("a = \n", x="b = \n"))
    assert [p.split(": ")[0] for p in found] == ["DIR/polywan.toml:1", "DIR/conf.d/x.toml:1"]


def test_other_files_in_the_drop_in_folder_are_left_alone(write: Callable[..., Path]) -> None:
    path = write(FIBRE, good="[global]\npriority = 7000\n")
    (path.parent / "conf.d" / "good.toml~").write_text("broken", encoding="utf-8")
    (path.parent / "conf.d" / ".good.toml").write_text("broken", encoding="utf-8")
    assert load(path).global_.priority == 7000


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    assert file_problems(tmp_path / "none.toml") == [
        (
            "DIR/none.toml: file: cannot be read: no such file or directory "
            '(five lines are enough: [uplinks.NAME] with interface = "…" for each link)'
        )
    ]


def test_a_folder_in_place_of_the_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "polywan.toml").mkdir()
    assert "is a directory" in file_problems(tmp_path / "polywan.toml")[0]


@pytest.mark.parametrize("writer", [False, True])
def test_a_pipe_among_the_drop_ins_is_a_problem_and_is_not_waited_for(tmp_path: Path, writer: bool) -> None:
    (tmp_path / "polywan.toml").write_text('[uplinks.a]\ninterface = "wan1"\n')
    (tmp_path / "conf.d").mkdir()
    pipe = tmp_path / "conf.d" / "pipe.toml"
    os.mkfifo(pipe)
    held = [os.open(pipe, os.O_RDWR | os.O_NONBLOCK)] if writer else []
    assert file_problems(tmp_path / "polywan.toml") == [
        "DIR/conf.d/pipe.toml: file: is not a regular file; expected a configuration"
    ]
    for descriptor in held:
        os.close(descriptor)


def test_a_huge_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "polywan.toml").touch()
    os.truncate(tmp_path / "polywan.toml", 100_000_000_000)
    assert "is larger than 16 MiB" in file_problems(tmp_path / "polywan.toml")[0]


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_a_problem_wherever_it_is(tmp_path: Path, device: str) -> None:
    (tmp_path / "polywan.toml").symlink_to(device)
    assert "is not a regular file; expected a configuration" in file_problems(tmp_path / "polywan.toml")[0]


def test_a_socket_among_the_drop_ins_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "polywan.toml").write_text('[uplinks.a]\ninterface = "wan1"\n')
    (tmp_path / "conf.d").mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "conf.d" / "sock.toml"))
        assert "cannot be read" in file_problems(tmp_path / "polywan.toml")[0]


def test_a_pipe_whose_writer_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIPE_TIMEOUT", 0)
    os.mkfifo(tmp_path / "polywan.toml")
    writer = os.open(tmp_path / "polywan.toml", os.O_RDWR | os.O_NONBLOCK)
    assert "is a pipe into which nothing was written" in file_problems(tmp_path / "polywan.toml")[0]
    os.close(writer)


def test_a_name_with_a_zero_byte_is_a_problem(tmp_path: Path) -> None:
    assert "cannot be read" in file_problems(tmp_path / "poly\0wan.toml")[0]


def test_a_drop_in_folder_that_is_a_file_is_a_problem(write: Callable[..., Path]) -> None:
    path = write(FIBRE)
    (path.parent / "conf.d").write_text("", encoding="utf-8")
    assert "DIR/conf.d: file: cannot be read: not a directory" in file_problems(path)


def test_text_that_is_not_utf_8_is_a_problem_with_its_line(write: Callable[..., Path]) -> None:
    assert file_problems(write(b"# ok\n# caf\xe9\n")) == [
        "DIR/polywan.toml:2: file: is not UTF-8 text (save it in UTF-8)"
    ]


def test_a_byte_order_mark_and_foreign_line_ends_do_not_matter(write: Callable[..., Path]) -> None:
    assert load(write(b"\xef\xbb\xbf" + FIBRE.replace("\n", "\r\n").encode())).uplinks["fibre"].interface == "eth1"


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match="is not a regular file"):
        load(Path("/dev/zero"))


def test_what_the_loader_returns_equals_what_the_model_makes_of_the_tables() -> None:
    text = BOTH + '[policies.web]\ntiers = [["lte"]]\n[[rules]]\nto = "192.0.2.0/24"\npolicy = "web"\n'
    assert load_text(text) == Config.model_validate(tomllib.loads(text))


def test_keys_are_found_on_their_lines() -> None:
    text = '''# comment with [brackets] and = signs
a = "x # no comment"
b.c = 1
"quo ted" = 2
[t."d.e"]
m = """
[not.a.table]
k = 1
""""
l = [ # list
  1,
  { x = 1, y = [2,
    3] }, ']'
]
[[r]]
p = 1
[[r]]
p = 2
[r.n]
q = 1
[[r.s]]
q = 1
'''
    tomllib.loads(text)
    lines = key_lines(text)
    assert not any("not" in path or "k" in path for path in lines)
    for path, line in {
        ("a",): 2,
        ("b", "c"): 3,
        ("quo ted",): 4,
        ("t", "d.e"): 5,
        ("t", "d.e", "m"): 6,
        ("t", "d.e", "l", 0): 11,
        ("t", "d.e", "l", 1, "y"): 12,
        ("t", "d.e", "l", 1, "y", 1): 13,
        ("t", "d.e", "l", 2): 13,
        ("r", 0, "p"): 16,
        ("r", 1, "p"): 18,
        ("r", 1, "n", "q"): 20,
        ("r", 1, "s", 0, "q"): 22,
    }.items():
        assert lines[path] == line, path


def test_two_hundred_uplinks_have_their_lines() -> None:
    text = "".join(f'[uplinks.w{i}]\ninterface = "w{i}"\n' for i in range(200))
    assert problem(text).hint.startswith("mark_mask = 0x3fc00000 has room for 254")
    lines = key_lines(text)
    assert all(lines["uplinks", f"w{i}", "interface"] == 2 * i + 2 for i in range(200))
