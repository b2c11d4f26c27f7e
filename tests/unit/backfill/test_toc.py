"""Choosing entries of a dump: what stays behind, and what is still missing."""

from __future__ import annotations

from cdc_migrator.backfill import toc

LISTING = """;
; Archive created at 2026-01-01
;     dbname: shop
;
226; 1259 100 TABLE shop item owner
;	depends on: 7
227; 1259 200 TABLE Odd "S Tab le owner name
2769; 0 0 COMMENT shop TABLE item owner
;	depends on: 226
2566; 0 0 TABLE ATTACH shop part owner
;	depends on: 227 226
2604; 2606 300 FK CONSTRAINT shop item item_fkey owner
;	depends on: 226 227
2773; 0 0 COMMENT shop CONSTRAINT item_fkey ON item owner
;	depends on: 2604
2760; 0 100 ROW SECURITY shop item owner
;	depends on: 226
2565; 3466 400 EVENT TRIGGER - watch owner
"""


def numbers(entries: list[toc.Entry]) -> list[int]:
    return [entry.number for entry in entries]


def test_listing_is_read_with_kinds_and_dependencies() -> None:
    """Kinds of two words, strange names and dependencies are told apart."""
    entries = {entry.number: entry for entry in toc.parse(LISTING)}

    assert entries[226].object == (1259, 100)
    assert entries[227].kind == "TABLE"
    assert entries[2566].kind == "TABLE ATTACH"
    assert entries[2566].depends == (227, 226)
    assert entries[2604].kind == "FK CONSTRAINT"
    assert entries[2760].object is None
    assert entries[2604].label == "FK CONSTRAINT shop item item_fkey"
    assert all(entry.line in LISTING for entry in entries.values())


def test_excluded_objects_take_their_nameless_entries_along() -> None:
    """The comment of a foreign key that stays behind stays behind, too; so do event triggers."""
    kept = toc.without(toc.parse(LISTING), {(2606, 300)})

    assert numbers(kept) == [226, 227, 2769, 2566, 2760]


def test_remaining_before_the_data_makes_only_what_is_missing() -> None:
    """A table that is there keeps its comment as it is; one that is not brings its own."""
    entries = toc.without(toc.parse(LISTING), ())

    assert numbers(toc.remaining(entries, {(1259, 100), (2606, 300)}, post=False)) == [227, 2566]
    assert toc.remaining(entries, {(1259, 100), (1259, 200), (2606, 300)}, post=False) == []


def test_remaining_after_the_data_repeats_what_does_no_harm() -> None:
    """An index may have been made and not yet attached when its maker was killed."""
    entries = toc.without(toc.parse(LISTING), ())
    left = toc.remaining(entries, {(1259, 100), (1259, 200), (2606, 300)}, post=True)

    assert numbers(left) == [2769, 2566, 2773, 2760]


def test_what_is_there_under_another_name_is_left_out_with_what_hangs_on_it() -> None:
    """Neither a renamed key, nor its comment, nor the partitions' indexes attached to it."""
    entries = toc.parse(
        "1; 2606 10 CONSTRAINT s parent parent_pkey owner\n"
        "2; 2606 11 CONSTRAINT s part part_pkey owner\n"
        "3; 0 0 INDEX ATTACH s part_pkey owner\n;\tdepends on: 1 2\n"
        "4; 0 0 COMMENT s CONSTRAINT parent_pkey ON parent owner\n;\tdepends on: 1\n"
        "5; 1259 12 INDEX s other owner\n"
    )
    kept = toc.without_renamed(entries, {(2606, 10)})
    assert [entry.number for entry in kept] == [5]
