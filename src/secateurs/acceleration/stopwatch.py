"""Times functions side by side."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch

Functions = Mapping[str, Callable[[], object]]
Measure = Callable[[Functions], Mapping[str, float]]
"""Gives the seconds that each function takes, by name. The first function is the dense one."""

_LEAST_SECONDS = 1e-3  # that a function is called for in a round
_BRIEF = 5e-3  # seconds of a call, below which it matters that the first ones are slower
_WARMING = 3  # such calls in each round before those that count
_TOO_SLOW = 1.5  # times as slow as the fastest: measured in the first rounds alone
_FIRST_ROUNDS = 3


class Stopwatch:
    """Calls every function in each round, one after the other.

    A function's time is the first one's median times the median of their ratio in each round, so
    that a slow moment of the machine, which all of a round share, changes little. After another
    function's calls the first of brief ones are several times as slow, since the caches hold other
    data and code; they do not count. Where one thread of a CPU works, its processor time counts,
    which other programs hardly change; else the time on the clock.

    Args:
        device: what the functions compute on.
        threads: how many threads they use.
        rounds: how often each is measured.
    """

    def __init__(self, device: torch.device, threads: int, rounds: int = 9):
        fine = time.get_clock_info("thread_time").resolution < 1e-5
        alone = device.type == "cpu" and threads == 1 and fine
        self._clock = time.thread_time if alone else time.perf_counter
        self._device, self._rounds = device, rounds

    def __call__(self, functions: Functions) -> dict[str, float]:
        """The seconds of each function; those of much slower ones are from a few rounds."""
        left = dict(functions)
        first = next(iter(left))
        calls = {name: self._calls_for(function) for name, function in left.items()}
        seconds: dict[str, list[float]] = {name: [] for name in left}
        for number in range(self._rounds):
            for name, function in left.items():
                seconds[name].append(self._seconds(function, *calls[name]))
            if number + 1 == _FIRST_ROUNDS:
                medians = {name: statistics.median(seconds[name]) for name in left}
                most = _TOO_SLOW * min(medians.values())
                left = {n: f for n, f in left.items() if n == first or medians[n] <= most}
        dense = statistics.median(seconds[first])
        return {name: dense * _ratio(taken, seconds[first]) for name, taken in seconds.items()}

    def _calls_for(self, function: Callable[[], object]) -> tuple[int, int]:
        """How many calls a round has: at first those that do not count, and then those that do."""
        function()
        once = self._seconds(function, 0, 1)
        if once >= _BRIEF:
            return 0, 1
        once = min(once, *(self._seconds(function, 0, 1) for _ in range(_WARMING - 1)))
        return _WARMING, max(1, min(1000, round(_LEAST_SECONDS / max(once, 1e-7))))

    def _seconds(self, function: Callable[[], object], warming: int, calls: int) -> float:
        for _ in range(warming):
            function()
        self._wait()
        began = self._clock()
        for _ in range(calls):
            function()
        self._wait()
        return (self._clock() - began) / calls

    def _wait(self) -> None:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)


def _ratio(seconds: list[float], others: list[float]) -> float:
    """The median ratio of two functions' times in the rounds that both were measured in."""
    pairs = zip(seconds, others, strict=False)  # the slow ones have fewer rounds
    return statistics.median(own / max(other, 1e-12) for own, other in pairs)
