"""Counters and histograms that an event moves by an addition or two; they become the library's samples when they are asked for.

Its own take a lock for each of the ten values that a message moves.

Invariant: for one thread. Labels are as many as were named, which `collect` sees to and not who counts.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]


class Counts(Collector):
    """A counter, one value for each set of labels."""

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._values: dict[Labels, float] = {}
        registry.register(self)

    def expect(self, *labels: str) -> None:
        """Let it stand at 0 from the start."""
        self._values.setdefault(labels, 0)

    def add(self, *labels: str, amount: float = 1) -> None:
        self._values[labels] = self._values.get(labels, 0) + amount

    def describe(self) -> Iterable[CounterMetricFamily]:
        return [CounterMetricFamily(self._name, self._text, labels=self._labels)]

    def collect(self) -> Iterable[CounterMetricFamily]:
        for family in self.describe():
            for labels, value in self._values.items():
                family.add_metric(_complete(labels, self._labels), value)
            yield family


class Timings(Collector):
    """A histogram, one for each set of labels. Units: seconds; `bounds` ascending, each the most that its bucket holds."""

    def __init__(self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._bounds = (*bounds, math.inf)
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}
        registry.register(self)

    def expect(self, *labels: str) -> None:
        """Let it stand at 0 from the start."""
        self._counts.setdefault(labels, [0] * len(self._bounds))
        self._sums.setdefault(labels, 0.0)

    def observe(self, seconds: float, *labels: str) -> None:
        if labels not in self._counts:
            self.expect(*labels)
        self._counts[labels][bisect_left(self._bounds, seconds)] += 1
        self._sums[labels] += seconds

    def describe(self) -> Iterable[HistogramMetricFamily]:
        return [HistogramMetricFamily(self._name, self._text, labels=self._labels)]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        for family in self.describe():
            for labels, counts in self._counts.items():
                buckets = zip(map(floatToGoString, self._bounds), accumulate(counts), strict=True)
                family.add_metric(_complete(labels, self._labels), list(buckets), self._sums[labels])
            yield family


def _complete(labels: Labels, names: Sequence[str]) -> Labels:
    """Raises: ValueError where they are not one for each name"""
    if len(labels) != len(names):
        raise ValueError(f"{labels} are not the labels {tuple(names)}")
    return labels
