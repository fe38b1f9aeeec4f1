"""What is in the package, and that nothing else can get into it."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from deb.errors import BuildError
from deb.wheels import fetch

from polywan.cli import VERBS
from polywan.config.reference.json_schema import json_schema
from support.packages import build

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def field(deb: Path, name: str) -> str:
    return subprocess.run(["dpkg-deb", "--field", deb, name], capture_output=True, text=True, check=True).stdout.strip()


def pages(tree: Path) -> list[Path]:
    return sorted((tree / "usr/share/man").rglob("*.gz"))


def text(page: Path) -> str:
    return gzip.decompress(page.read_bytes()).decode("utf-8")


def test_there_is_one_compiled_module_for_each_python(tree: Path) -> None:
    found = sorted(path.name for path in (tree / "usr/lib/polywan").rglob("*.so"))
    assert [re.sub(r".*cpython-3(\d+).*", r"3.\1", name) for name in found] == list(PYTHONS)


@pytest.mark.parametrize("python", PYTHONS)
def test_the_tree_runs_by_every_python_that_this_machine_has(tree: Path, python: str) -> None:
    program = shutil.which(f"python{python}")
    code = (
        f"import sys; sys.path.insert(0, {str(tree / 'usr/lib/polywan')!r}); from polywan.__main__ import main; main()"
    )
    config = str(ROOT / "examples/five-lines.toml")
    if program is None or subprocess.run([program, "--version"], capture_output=True, check=False).returncode:
        pytest.skip(f"tool missing: python{python}")
    done = subprocess.run(
        [program, "-ISB", "-c", code, "check", "--config", config], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_pythons_of_the_tree_are_those_that_the_package_asks_for(deb: Path) -> None:
    depends = field(deb, "Depends")
    assert "python3 (>= 3.11)" in depends
    assert "python3 (<< 3.15)" in depends


def test_there_is_a_manual_page_for_the_command_for_every_verb_and_for_the_file(tree: Path) -> None:

    wanted = {"polywan.1.gz", "polywan.toml.5.gz", *(f"polywan-{verb}.1.gz" for verb in VERBS)}
    assert {path.name for path in pages(tree)} == wanted


def test_manual_pages_are_well_formed(tree: Path) -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("tool missing: mandoc")
    command = ["mandoc", "-T", "lint", "-W", "warning"]
    complaints = [
        subprocess.run(command, input=text(page), capture_output=True, text=True, check=False) for page in pages(tree)
    ]
    assert [done.stdout + done.stderr for done in complaints if done.returncode] == []


def test_every_key_of_the_file_is_in_its_manual_page(tree: Path) -> None:
    page = text(tree / "usr/share/man/man5/polywan.toml.5.gz")
    keys = re.findall(r"^### `(\w+)`$", (ROOT / "docs/config.md").read_text("utf-8"), re.MULTILINE)
    assert len(keys) > 50
    assert [key for key in keys if rf"\fB{key}\fR" not in page] == []


def test_the_schema_is_the_one_of_the_models(tree: Path) -> None:

    found = json.loads((tree / "usr/share/polywan/schema.json").read_text("utf-8"))
    assert found["title"] == "polywan"
    assert found["properties"].keys() == json_schema()["properties"].keys()


def test_completion_for_three_shells_asks_the_command(tree: Path) -> None:
    places = (
        "bash-completion/completions/polywan",
        "zsh/vendor-completions/_polywan",
        "fish/vendor_completions.d/polywan.fish",
    )
    for place in places:
        assert "_POLYWAN_COMPLETE=" in (tree / "usr/share" / place).read_text("utf-8")


def test_documents_find_each_other(tree: Path) -> None:
    documents = tree / "usr/share/doc/polywan"
    links = {
        (page, link)
        for page in documents.rglob("*.md")
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))
    }
    missing = [(page, link) for page, link in links if "://" not in link and not (page.parent / link).exists()]
    broken = [f"{page.relative_to(documents)}: {link}" for page, link in missing]
    # Design pages also point at source files, which are in the repository only.
    assert [line for line in broken if not line.startswith("docs/design/") and "/bench/" not in line] == []


def test_every_wheel_of_the_tree_has_its_licence_in_the_file_copyright(tree: Path) -> None:
    licences = (tree / "usr/share/doc/polywan/copyright").read_text("utf-8")
    names = [path.name for path in (tree / "usr/lib/polywan").glob("*.dist-info")]
    assert len(names) > 10
    assert [name for name in names if f"usr/lib/polywan/{name}/*" not in licences] == []


def test_a_second_build_gives_the_same_bytes(deb: Path, tmp_path: Path) -> None:
    assert build(tmp_path).read_bytes() == deb.read_bytes()


def alike(tree: Path) -> dict[str, bytes]:
    """Return the files that no architecture has for itself; what describes a wheel says for which it was made."""
    files = [path for path in tree.rglob("*") if path.is_file() and path.suffix != ".so"]
    return {str(p.relative_to(tree)): p.read_bytes() for p in files if ".dist-info/" not in str(p)}


def test_the_package_for_another_architecture_differs_in_its_compiled_modules_alone(
    deb: Path, tree: Path, tmp_path: Path
) -> None:
    other = {"amd64": "arm64", "arm64": "amd64"}[field(deb, "Architecture")]
    built = build(tmp_path, "--arch", other)
    assert field(built, "Architecture") == other
    subprocess.run(["dpkg-deb", "--extract", built, tmp_path / "tree"], check=True)
    machine = {"amd64": b"\x3e\x00", "arm64": b"\xb7\x00"}[other]
    modules = sorted((tmp_path / "tree").rglob("*.so"))
    assert len(modules) == len(PYTHONS)
    assert [path.name for path in modules if path.read_bytes()[18:20] != machine] == []
    assert alike(tree) == alike(tmp_path / "tree")


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path) -> None:
    lock = (ROOT / "packaging/requirements.txt").read_text("utf-8")
    begin = lock.index("click==")
    end = lock.index("dnspython==")
    changed = lock[:begin] + re.sub(r"sha256:..", "sha256:00", lock[begin:end]) + lock[end:]
    (tmp_path / "requirements.txt").write_text(changed, "utf-8")

    with pytest.raises(BuildError, match=r"(?s)DO NOT MATCH THE HASHES.*nothing was built"):
        fetch(tmp_path / "requirements.txt", "amd64", ["3.11"], tmp_path)


def test_lintian_finds_no_error(deb: Path) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("tool missing: lintian")
    done = subprocess.run(
        ["lintian", "--allow-root", "--fail-on", "error,warning", deb], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
