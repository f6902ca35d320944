"""The slot keeps the newest item only."""

import threading
import time

from cmkd_ros.ros.latest import LatestSlot


def test_the_newest_item_replaces_the_one_before():
    slot = LatestSlot()
    assert slot.put('old') is False
    assert slot.put('new') is True
    assert slot.take(0.0) == 'new'
    assert slot.take(0.0) is None
    assert slot.put('next') is False


def test_take_waits_for_an_item_and_no_longer_than_told():
    slot = LatestSlot()
    started = time.monotonic()
    assert slot.take(0.05) is None
    assert time.monotonic() - started >= 0.05
    threading.Timer(0.05, slot.put, ['item']).start()
    assert slot.take(5.0) == 'item'
    assert time.monotonic() - started < 4.0


def test_a_slow_consumer_sees_only_newer_items():
    """Ages never go back, whatever the threads do, and the last item is never lost."""
    slot, seen = LatestSlot(), []

    def consume():
        while not seen or seen[-1] != 999:
            item = slot.take(1.0)
            if item is not None:
                seen.append(item)
                time.sleep(0.001)

    consumer = threading.Thread(target=consume)
    consumer.start()
    replaced = sum(slot.put(number) for number in range(1000))
    consumer.join(10.0)
    assert seen == sorted(set(seen))
    assert seen[-1] == 999
    assert len(seen) + replaced == 1000


def test_a_wait_may_be_ended_from_outside_once():
    slot = LatestSlot()
    started = time.monotonic()
    threading.Timer(0.05, slot.wake).start()
    assert slot.take(5.0) is None
    slot.wake()
    assert slot.take(5.0) is None
    assert time.monotonic() - started < 4.0
    assert slot.take(0.05) is None
    slot.put('item')
    slot.wake()
    assert slot.take(0.0) == 'item'
