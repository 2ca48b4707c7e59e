"""Rate limits, shared pauses and what a response asks to wait."""

import asyncio
import email.utils
import time

import pytest

from ultralink_nb import limits
from ultralink_nb.limits import RateLimit, SharedPause, backoff, named_pause


def test_backoff_doubles_within_its_spread_and_is_bounded():
    for step in range(12):
        exact = min(60.0, 0.5 * 2**step)
        drawn = [backoff(step) for _ in range(200)]
        assert 0.5 * exact <= min(drawn) < 0.8 * exact and 1.2 * exact < max(drawn) <= 1.5 * exact
    assert backoff(10_000) <= 90


@pytest.mark.parametrize("headers, seconds", [
    ({"retry-after": "7"}, 7.0), ({"retry-after": "1.5"}, 1.5), ({"retry-after": "300"}, 300.0), ({"retry-after": "-3"}, 0.0),
    ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
    ({}, None), ({"retry-after": "soon"}, None), ({"retry-after": "inf"}, None), ({"retry-after": "nan"}, None),
    ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30.0),
    ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, 0.0),
])
def test_a_named_pause_in_seconds_or_as_a_date(headers, seconds):
    assert named_pause(headers) == seconds


def test_a_date_without_the_servers_own_is_held_against_this_clock():
    until = email.utils.formatdate(time.time() + 40, usegmt=True)
    assert 37 < named_pause({"retry-after": until}) <= 40


def run_takes(per_minute, amounts, corrections=()):
    """When each amount was granted, in seconds from the start."""
    async def go():
        limit, started, granted = RateLimit(per_minute), time.monotonic(), []

        async def take(amount):
            await limit.take(amount)
            granted.append(time.monotonic() - started)

        for difference in corrections:
            limit.correct(difference)
        await asyncio.gather(*map(take, amounts))
        return granted

    return asyncio.run(go())


def test_a_rate_is_kept_after_what_was_saved_up():
    granted = run_takes(1200, [1] * 30)  # 20 a second: 20 saved up, 10 more take half a second
    assert granted[19] < 0.2 and 0.45 <= granted[29] < 1.5
    assert granted == sorted(granted)


def test_more_than_is_saved_up_is_lent_and_the_next_waits():
    granted = run_takes(6000, [140, 10, 1])  # 100 a second: in debt by 40, so the 10 come after half a second
    assert granted[0] < 0.2 and 0.45 <= granted[1] < 1.5 and granted[2] >= granted[1]


def test_a_correction_counts_both_ways():
    assert run_takes(6000, [100], corrections=[30])[0] >= 0.28
    assert run_takes(6000, [100], corrections=[30, -30])[0] < 0.2
    assert run_takes(6000, [100, 20], corrections=[-1000])[1] >= 0.15  # no more is saved up than a second's worth


def test_a_limit_must_be_positive():
    with pytest.raises(ValueError, match="above 0"):
        RateLimit(0)


def test_a_pause_is_shared_and_begun_once_for_requests_that_were_under_way():
    async def go():
        pause, sent = SharedPause(), time.monotonic()
        first = pause.begin(sent)
        again = [pause.begin(sent) for _ in range(50)]
        assert max(again) <= first <= 1.5 * limits.FIRST_PAUSE
        assert pause.begin(sent, named=2.0) == pytest.approx(2.0, abs=0.05)  # but a longer pause that is asked for is kept
        assert pause.since is not None
        pause.end(sent)  # an answer to a request from before the pause says nothing
        assert pause.since is not None
        pause.end(time.monotonic())
        assert pause.since is None

    asyncio.run(go())


def test_all_wait_for_a_pause_and_no_longer_than_needed():
    async def go():
        pause, started = SharedPause(), time.monotonic()
        pause.begin(started, named=0.2)

        async def wait():
            await pause.wait()
            return time.monotonic() - started

        return await asyncio.gather(*(wait() for _ in range(20)))

    waited = asyncio.run(go())
    assert min(waited) >= 0.2 and max(waited) < 1.0
