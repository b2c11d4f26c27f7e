"""The configured hooks, as the cutover runs them."""

from __future__ import annotations

from collections.abc import Sequence

from cdc_migrator.cutover.hooks.base import Context, Hook, Moment, Side, run_all


class Hooks:
    """Runs all hooks at a moment. `leaving` and `entering` are the two sides of this way."""

    def __init__(self, hooks: Sequence[Hook], context: Context, leaving: Side) -> None:
        self._hooks = hooks
        self._context = context
        self._leaving = leaving

    def run(self, moment: Moment, attempt: int) -> list[str]:
        """Run those that have something to do; what each did.

        Raises as `cutover.hooks.base.run_all`.
        """
        side = self._leaving if moment is Moment.UNDO else self._context.side
        context = Context(
            self._context.migration, attempt, side, self._context.source, self._context.target
        )
        ran = run_all(self._hooks, moment, context)
        return [f"{one.name}: {one.detail} ({one.seconds * 1000:.0f} ms)" for one in ran]
