import asyncio

import pytest

from ultralink_nb.asking import ask_all
from ultralink_nb.chat import ChatError


async def collect(items, ask, **options):
    return [pair async for pair in ask_all(items, ask, **options)]


def test_results_come_in_order_and_never_more_than_asked_for_at_once():
    running, most, begun = 0, 0, []

    async def ask(item):
        nonlocal running, most
        begun.append(item)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02 if item == 0 else 0.0)
        running -= 1
        return item * 2

    results = asyncio.run(collect(iter(range(200)), ask, concurrency=5))
    assert results == [(item, item * 2) for item in range(200)] and most == 5


def test_a_generator_is_not_drained_ahead():
    taken = 0

    def items():
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    async def first():
        async for _ in ask_all(items(), echo, concurrency=3):
            return

    async def echo(item):
        return item

    asyncio.run(first())
    assert taken <= 3 * 4 + 3 * 4


def test_different_failures_or_one_success_go_on():
    async def ask(item):
        raise ChatError("no", f"cause_{item % 2}")

    results = asyncio.run(collect(range(50), ask))
    assert len(results) == 50 and all(isinstance(outcome, ChatError) for _, outcome in results)

    async def first_works(item):
        if item:
            raise ChatError("no", "one")
        return "yes"

    assert len(asyncio.run(collect(range(50), first_works))) == 50


@pytest.mark.parametrize("cause, answered", [("connection", 60), ("invalid_json", 100)])
def test_a_server_that_is_gone_ends_the_run_and_answers_that_do_not_fit_do_not(cause, answered):
    async def ask(item):
        if 40 <= item < 90:
            raise ChatError("no", cause)

    async def go():
        found = []
        try:
            async for pair in ask_all(range(100), ask, give_up_after=21):
                found.append(pair)
        except ChatError as error:
            assert "21 requests in a row failed" in str(error)
        return found

    assert len(asyncio.run(go())) == answered


def test_other_errors_are_not_swallowed():
    async def ask(item):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(collect(range(5), ask))
