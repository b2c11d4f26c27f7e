"""Consumer, envelope and assembler in one loop: the next whole transactions of the stream."""

from __future__ import annotations

from dataclasses import dataclass

from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.changes import Transaction
from cdc_migrator.stream.assembler import Assembler
from cdc_migrator.stream.blocks import FEW_RECORDS, BlockDecoder
from cdc_migrator.stream.consumer import StreamConsumer
from cdc_migrator.stream.envelope import Envelope


@dataclass(frozen=True, slots=True)
class Read:
    """What one read brought.

    Attributes:
        transactions: complete ones, in commit order.
        at_end: the end of the log was seen behind them: flush now.
        resume_offset: where reading may start again once all transactions read so far (not
            only these) are applied.
        redelivered: transactions skipped as delivered before, since the reader was made.
        halt: why the stream cannot go on behind `transactions`. These are whole and to be
            applied first; the next read raises it.
    """

    transactions: list[Transaction]
    at_end: bool
    resume_offset: int
    redelivered: int
    halt: StreamHalted | None


class StreamReader:
    """Reads transactions; not thread-safe. Raises what its three parts raise.

    `few`: with no more messages than this, or than is worth it, none is decoded as a block.
    """

    def __init__(
        self,
        consumer: StreamConsumer,
        envelope: Envelope,
        assembler: Assembler,
        few: int = FEW_RECORDS,
    ) -> None:
        self.consumer = consumer
        self.assembler = assembler
        self._decode = BlockDecoder(envelope, min(few, FEW_RECORDS)).decode_many
        self._halt: StreamHalted | None = None

    def read(self, max_messages: int, timeout: float) -> Read:
        """The transactions that the next `max_messages` records complete; see `Read`.

        Waits as `StreamConsumer.poll` does. Raises a halt only when nothing precedes it.
        """
        if self._halt is not None:
            raise self._halt
        polled = self.consumer.poll(max_messages, timeout)
        transactions: list[Transaction] = []
        try:
            # One by one: those in front of a halt stay.
            for transaction in self.assembler.assemble(self._decode(polled.messages)):
                transactions.append(transaction)
        except StreamHalted as halt:
            self._halt = halt
            if not transactions:
                raise
        return Read(
            transactions,
            polled.at_end,
            self.assembler.resume_offset,
            self.assembler.counters.redelivered,
            self._halt,
        )
