"""Where a JVM's class archive is taken from, and how the first one leaves it."""

from __future__ import annotations

from pathlib import Path

from cdc_migrator.stack import class_archive
from cdc_migrator.stack.class_archive import Archive
from cdc_migrator.stack.java import Java


def runtime(place: Path, *, whole: bool = True) -> Java:
    """A runtime's directory; one that was cut down has no archive of its own."""
    (place / "bin").mkdir(parents=True)
    (place / "lib" / "server").mkdir(parents=True)
    (place / "bin" / "java").touch()
    if whole:
        (place / "lib" / "server" / "classes.jsa").touch()
    return Java(place / "bin" / "java", 17, "PATH")


def found(tmp_path: Path, java: Java, *jars: str) -> Archive:
    path = [Path(jar) for jar in jars or ("a.jar",)]
    return class_archive.find(tmp_path / "cache", "kafka", java, path, tmp_path / "home")


def left(tmp_path: Path, archive: Archive) -> None:
    """Its JVM ends in good order."""
    assert archive.leaves is not None
    (tmp_path / "home").mkdir(exist_ok=True)
    Path(archive.leaves[0]).write_bytes(b"classes")
    class_archive.keep(archive.leaves)


def test_the_first_life_leaves_what_later_ones_take(tmp_path: Path) -> None:
    """The same runtime and jars find it."""
    java = runtime(tmp_path / "java")
    first = found(tmp_path, java)
    assert first.options[0].startswith("-XX:ArchiveClassesAtExit=")
    left(tmp_path, first)
    later = found(tmp_path, java)
    assert later.leaves is None
    assert first.leaves is not None
    assert later.options[0] == f"-XX:SharedArchiveFile={first.leaves[1]}"
    assert Path(first.leaves[1]).read_bytes() == b"classes"
    assert not Path(first.leaves[0]).exists()


def test_other_jars_or_another_runtime_begin_anew(tmp_path: Path) -> None:
    """What they leave takes the place of what fits no more."""
    java = runtime(tmp_path / "java")
    left(tmp_path, found(tmp_path, java))
    assert found(tmp_path, java, "b.jar").leaves is not None
    other = found(tmp_path, runtime(tmp_path / "other"))
    assert other.leaves is not None
    left(tmp_path, other)
    assert [str(one) for one in (tmp_path / "cache" / "archives").iterdir()] == [other.leaves[1]]


def test_a_runtime_without_its_own_archive_does_without(tmp_path: Path) -> None:
    """It could build upon none."""
    assert found(tmp_path, runtime(tmp_path / "java", whole=False)) == Archive()


def test_nothing_left_is_nothing_kept(tmp_path: Path) -> None:
    """A JVM that was killed has written nothing; nobody fails for it."""
    leaves = (str(tmp_path / "none.jsa"), str(tmp_path / "cache" / "none.jsa"))
    class_archive.keep(leaves)
    assert not Path(leaves[1]).exists()
