"""Ask both sides what a rule wants to know, and have it judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from psycopg import sql

from cdc_migrator.config.rules import Aggregate, Count, Freshness, Rule, Spot, Types
from cdc_migrator.validate import expressions as ex
from cdc_migrator.validate import judge, questions, spot
from cdc_migrator.validate.known import Catalogs
from cdc_migrator.validate.questions import Asked, Violations
from cdc_migrator.validate.reading import Readers
from cdc_migrator.validate.results import Answer, Example, Judged, Part, Row, Side

_MOST_ROWS = 100_000  # of a set that both sides return
_LOOK_ROWS = 20


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks within a transaction of either side that `Readers.under` has begun.

    Attributes:
        values: rows that break a rule are to be named.
    """

    readers: Readers
    known: Catalogs
    values: bool

    def judged(self, rule: Rule) -> Judged:
        """What came of the rule. Raises MigratorError: it could not be asked."""
        if isinstance(rule, Spot):
            return self._spot(rule)
        if isinstance(rule, Aggregate):
            queries = [questions.aggregate(rule, on) for on in (False, True)]
            here, there = (ex.text(one) for one in queries)
            look = here
            if there != here:
                look = f"-- on the source\n{here};\n-- on the target\n{there};"
            source, target = self._both(queries, _MOST_ROWS)
            return judge.aggregate(rule, source, target, look, self.values)
        if isinstance(rule, Count):
            asked = [questions.counted(rule, self.known, on) for on in (False, True)]
            return judge.counts(rule, *self._both(asked), ex.text(asked[0]))
        if isinstance(rule, Freshness):
            source, target = self._both(
                [questions.newest(rule, self.known, on) for on in (False, True)]
            )
            look = ex.text(questions.latest(rule, self.known, False), _LOOK_ROWS)
            return judge.freshness(rule, source, target, look)
        if isinstance(rule, Types) and rule.is_ is None:
            return judge.types(
                rule, self.known.on(False, rule.table), self.known.on(True, rule.table)
            )
        return self._violations(rule)

    def _both(self, statements: Sequence[sql.Composed], most: int = 1) -> tuple[Answer, Answer]:
        return self.readers.both(lambda target: self.readers.ask(target, statements[target], most))

    def _violations(self, rule: Violations) -> Judged:
        asked = [questions.violations(rule, self.known, on) for on in (False, True)]
        wanted = tuple(rule.sides in ("both", side) for side in ("source", "target"))

        def rows(target: bool) -> list[Row | None]:
            if not wanted[target]:
                return [None] * len(asked[target])
            return [self.readers.ask(target, one.statement).rows[0] for one in asked[target]]

        answers = self.readers.both(rows)
        found = []
        of: list[tuple[Asked, Asked]] = []
        for here, there, first, second in zip(*asked, *answers, strict=True):
            for place, (one, other) in enumerate(zip(here.asked, there.asked, strict=True), 1):
                # A table of another name is looked for where rows break the rule.
                only_there = first is None or (int(first[place] or 0) == 0 and second is not None)
                look = ex.text((other if only_there else one).look, _LOOK_ROWS)
                found.append((one.what, look, first, second, place))
                of.append((one, other))
        result = judge.violations(rule, found)
        if not self.values or not rule.max_examples:
            return result
        parts = [
            part if part.passed else self._exemplified(part, both, rule.max_examples)
            for part, both in zip(result.parts, of, strict=True)
        ]
        return replace(result, parts=tuple(parts))

    def _exemplified(self, part: Part, asked: tuple[Asked, Asked], most: int) -> Part:
        sides: tuple[tuple[Side, str | None], ...] = (
            ("source", part.source),
            ("target", part.target),
        )
        examples: list[Example] = []
        for target, (side, count) in enumerate(sides):
            if count in (None, "0"):
                continue
            one = asked[target]
            limited = sql.SQL("{} LIMIT {}").format(one.look, sql.Literal(most))
            answer = self.readers.ask(bool(target), limited, most)
            for row in answer.rows:
                named = list(zip(answer.columns, row, strict=True))
                rest = dict(named[one.key :])
                shown = {side: rest}
                examples.append(
                    Example(
                        dict(named[: one.key]),
                        side,
                        tuple(rest),
                        shown.get("source", {}),
                        shown.get("target", {}),
                    )
                )
        return replace(part, examples=tuple(examples))

    def _spot(self, rule: Spot) -> Judged:
        on = [self.known.on(target, rule.table) for target in (False, True)]
        # Both sides' keys are those of the source, by which the stream tells rows apart.
        there = replace(on[1], key=on[0].key)

        def picked(target: bool) -> set[Row]:
            statement = spot.picks(rule, there if target else on[0])
            if statement is None:
                return set()
            return set(self.readers.ask(target, statement, _MOST_ROWS).rows)

        source, target = self.readers.both(picked)
        keys = sorted(
            source | target | set(spot.named(rule)), key=lambda one: [part or "" for part in one]
        )
        columns = spot.compared(on[0], there)
        if not keys:
            empty = Answer(tuple(columns), (), ())
            return spot.judge(rule, columns, len(on[0].key), (empty, empty), "", self.values)
        answers = self._both(
            [spot.fetch(one, columns, keys) for one in (on[0], there)], 2 * len(keys)
        )
        look = spot.look(on[0], columns, on[0].key)
        return spot.judge(rule, columns, len(on[0].key), answers, look, self.values)
