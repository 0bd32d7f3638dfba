"""How sure a difference between two prompt versions is."""

import random
from decimal import Decimal
from statistics import mean, variance

from ingest.comparison import FEWEST_SAMPLES, compare, interval
from ingest.report_rows import Moments


def moments(values):
    return Moments(len(values), Decimal(mean(values)), Decimal(variance(values)))


def sample(average, size, seed):
    chance = random.Random(seed)
    return moments([chance.gauss(average, 10) for _ in range(size)])


def test_a_clear_difference_is_found_and_its_range_holds_the_truth():
    found = compare(sample(100, 500, 1), sample(80, 500, 2))
    assert found.is_clear
    assert found.low < Decimal("-0.2") < found.high < 0


def test_no_difference_is_not_clear():
    assert not compare(sample(100, 100, 3), sample(100, 100, 4)).is_clear


def test_ninety_five_of_a_hundred_intervals_hold_the_truth():
    intervals = [interval(sample(100, 50, seed)) for seed in range(400)]
    held = sum(1 for low, high in intervals if low < 100 < high)
    assert 0.92 <= held / 400 <= 0.98


def test_too_few_samples_are_said_so():
    found = compare(sample(100, FEWEST_SAMPLES - 1, 5), sample(10, 500, 6))
    assert found.too_few
    assert not found.is_clear
    assert interval(sample(100, FEWEST_SAMPLES - 1, 5)) is None


def test_a_first_mean_of_zero_compares_with_nothing():
    nothing = Moments(100, Decimal(0), Decimal(0))
    found = compare(nothing, sample(1, 100, 7))
    assert (found.low, found.high, found.too_few) == (None, None, False)
