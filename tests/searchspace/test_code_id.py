"""Code has the name that git gives it, also where there is no git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from searchspace.code_id import CODE, code_id
from searchspace.record import provenance

ROOT = Path(__file__).resolve().parents[2]
WHO = {f"GIT_{who}_{what}": "nobody" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(root: Path, *arguments: str, given: str = "") -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], input=given, capture_output=True, text=True, check=True,
        env=os.environ | WHO,
    )  # fmt: skip
    return done.stdout


def of_commit(root: Path) -> str:
    """As clusters/README.md says to ask git."""
    return git(root, "mktree", given=git(root, "ls-tree", "HEAD", *CODE)).strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Names that sort otherwise with git than with Python, a program, folders that git does not know."""
    root = tmp_path / "project"
    files = ("tune_csem.py", "README.md", "reports/page/a.css", "reports/page.py", "reports/page-2.py")
    for name in (*files, "searchspace/space.py", "trainables/parts/gcn.py", "datasets/shards.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}: é\n")
    (root / "tune_csem.py").chmod(0o755)
    git(tmp_path, "init", "-q", str(root))
    git(root, "add", ".")
    git(root, "commit", "-qm", "all")
    (root / "datasets" / "gone" / "__pycache__").mkdir(parents=True)
    (root / "datasets" / "gone" / "__pycache__" / "gone.pyc").write_bytes(b"\0")
    (root / "datasets" / ".DS_Store").touch()
    return root


def test_a_commit_and_its_files_have_one_name(checkout: Path) -> None:
    assert code_id(checkout) == of_commit(checkout)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_this_project_as_its_last_commit_has_it(tmp_path: Path) -> None:
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", "HEAD", *CODE], capture_output=True, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(tmp_path)], input=archive.stdout, check=True)
    assert code_id(tmp_path) == of_commit(ROOT)


@pytest.mark.parametrize("change", ["a byte", "a name", "a mode", "a new file"])
def test_other_code_has_another_name_and_what_is_no_code_has_none(checkout: Path, change: str) -> None:
    path = checkout / "searchspace" / "space.py"
    match change:
        case "a byte":
            path.write_text(path.read_text() + " ")
        case "a name":
            path.rename(path.with_name("spaces.py"))
        case "a mode":
            path.chmod(0o755)
        case "a new file":
            path.with_name("other.py").touch()
    assert code_id(checkout) != of_commit(checkout)


def test_what_is_no_code_changes_nothing_and_a_run_without_git_is_traced_by_it(checkout: Path) -> None:
    (checkout / "README.md").write_text("other words")
    (checkout / ".git").rename(checkout.parent / "kept")
    recorded = provenance(checkout)["git"]
    (checkout.parent / "kept").rename(checkout / ".git")
    assert recorded == {"commit": None, "dirty": False, "code": of_commit(checkout)}
