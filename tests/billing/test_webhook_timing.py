"""How long a refusal takes tells nothing about how much of the signature was right."""

import gc
import statistics
import time

from tests.billing.messages import Shop, message, sign
from tests.billing.provider_facts import facts

BODY = message(facts("77"))
ROUNDS = 2_000
RIGHT_DIGITS = (0, 32, 63)


def guess(right_digits):
    """A signature of which so many digits from the left are right."""
    expected = sign(BODY)
    wrong = "".join("1" if digit == "0" else "0" for digit in expected[right_digits:])
    return expected[:right_digits] + wrong


def medians(shop):
    guesses = [guess(number) for number in RIGHT_DIGITS]
    taken = [[] for _ in guesses]
    gc.disable()
    try:
        for turn in range(ROUNDS):
            # In another order each time, so that none of them always comes after the same one.
            for place in [(turn + offset) % len(guesses) for offset in range(len(guesses))]:
                started = time.perf_counter_ns()
                assert not shop.verify_webhook(BODY, guesses[place])
                taken[place].append(time.perf_counter_ns() - started)
    finally:
        gc.enable()
    return [statistics.median(times) for times in taken]


def test_a_longer_right_prefix_takes_no_longer():
    """A comparison that stops at the first wrong digit takes a third longer for 63 right digits than for none."""
    shop = Shop()
    assert shop.verify_webhook(BODY, sign(BODY))
    medians(shop)
    for _ in range(5):
        found = medians(shop)
        if max(found) <= 1.05 * min(found):
            return
    raise AssertionError(f"medians in ns by right digits {RIGHT_DIGITS}: {found}")
