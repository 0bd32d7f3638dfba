"""Leader and followers: everything is done once, in groups, and nobody waits for ever."""

import threading

import pytest

from opsmeter_site.lib.groups import GroupRunner, GroupTimeoutError

WAIT = 10


def in_threads(number, work):
    threads = [threading.Thread(target=work, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    return threads


def join(threads):
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()


class Gate:
    """Work that doubles its items and stands still until it is let through."""

    def __init__(self):
        self.groups = []
        self.entered = threading.Semaphore(0)
        self.let_through = threading.Semaphore(0)

    def __call__(self, items):
        self.groups.append(list(items))
        self.entered.release()
        assert self.let_through.acquire(timeout=WAIT)
        return [item * 2 for item in items]


def test_alone_on_the_line_work_starts_at_once():
    assert GroupRunner(lambda items: [item + 1 for item in items], timeout=WAIT).run(1) == 2


def test_what_arrives_meanwhile_shares_the_next_round_and_gets_its_own_result():
    gate, results = Gate(), {}
    runner = GroupRunner(gate, timeout=WAIT)

    def run(index):
        results[index] = runner.run(index)

    first = in_threads(1, run)
    assert gate.entered.acquire(timeout=WAIT)
    others = [threading.Thread(target=run, args=(index,)) for index in range(1, 6)]
    for thread in others:
        thread.start()
    while len(runner._waiting) < 5:
        threading.Event().wait(0.001)
    gate.let_through.release(2)
    join([*first, *others])

    assert gate.groups[0] == [0]
    assert sorted(gate.groups[1]) == [1, 2, 3, 4, 5]
    assert results == {index: index * 2 for index in range(6)}


def test_an_error_reaches_everybody_in_the_group_and_the_next_group_goes_on():
    failures = [ValueError("once")]

    def work(items):
        if failures:
            raise failures.pop()
        return list(items)

    runner = GroupRunner(work, timeout=WAIT)

    with pytest.raises(ValueError, match="once"):
        runner.run(1)
    assert runner.run(2) == 2


def test_a_group_is_bounded_by_weight_but_never_empty():
    gate, results = Gate(), []
    runner = GroupRunner(gate, timeout=WAIT, weight=lambda item: item, max_weight=10)
    first = in_threads(1, lambda _: results.append(runner.run(99)))
    assert gate.entered.acquire(timeout=WAIT)
    others = in_threads(4, lambda _: results.append(runner.run(6)))
    while len(runner._waiting) < 4:
        threading.Event().wait(0.001)
    gate.let_through.release(5)
    join([*first, *others])

    assert gate.groups == [[99], [6], [6], [6], [6]]
    assert sorted(results) == [12, 12, 12, 12, 198]


def test_behind_a_round_that_hangs_nobody_waits_longer_than_the_timeout():
    gate = Gate()
    runner = GroupRunner(gate, timeout=0.05)
    stuck = in_threads(1, lambda _: runner.run(1))
    assert gate.entered.acquire(timeout=WAIT)

    with pytest.raises(GroupTimeoutError):
        runner.run(2)
    with pytest.raises(GroupTimeoutError):
        runner.run(3)

    gate.let_through.release(2)
    join(stuck)
    assert runner.run(4) == 8
    assert gate.groups == [[1], [4]]


def test_thousands_of_items_from_many_threads_are_each_done_once():
    done, lock, wrong = [], threading.Lock(), []

    def work(items):
        with lock:
            done.extend(items)
        return [-item for item in items]

    runner = GroupRunner(work, timeout=WAIT)

    def run(index):
        wrong.extend(number for number in range(index * 500, index * 500 + 500) if runner.run(number) != -number)

    join(in_threads(16, run))

    assert wrong == []
    assert sorted(done) == list(range(8_000))
