"""What costs much is asked rarely, and an error is no answer."""

from __future__ import annotations

import pytest

from cdc_migrator.monitor.session import Paced


class Server:
    """Takes `seconds` for each answer, which is how often it was asked."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.now, self.asked = seconds, 0.0, 0

    def __call__(self) -> int:
        self.now += self.seconds
        self.asked += 1
        return self.asked


def test_the_answer_holds_until_it_is_old() -> None:
    """Then it is asked again."""
    server = Server()
    paced: Paced[int] = Paced(10, lambda: server.now)
    for server.now, expected in ((0, 1), (9.9, 1), (10, 2), (15, 2), (25, 3)):
        assert paced.get(server) == expected


def test_a_dear_answer_holds_longer() -> None:
    """No more than a twentieth of the time is spent on it."""
    server = Server(seconds=3.0)
    paced: Paced[int] = Paced(10, lambda: server.now)
    assert paced.get(server) == 1
    server.now = 62.9
    assert paced.get(server) == 1
    server.now = 63.0
    assert paced.get(server) == 2


def test_an_error_is_raised_and_asked_again_at_once() -> None:
    """And the answer from before does not come back in its place."""
    server = Server()
    paced: Paced[int] = Paced(10, lambda: server.now)
    assert paced.get(server) == 1
    server.now = 20
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            paced.get(lambda: 1 // 0)
    assert paced.get(server) == 2
