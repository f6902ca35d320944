"""One thread does everything that touches the network."""

import threading
import time

import pytest

from cmkd_ros.ros.worker import Worker


@pytest.fixture
def worker():
    made = Worker('test_worker')
    yield made
    assert made.stop(5.0)


def test_jobs_and_steps_share_one_thread_that_is_not_ours(worker):
    threads = {worker.call(threading.get_ident)}
    worker.repeat(lambda: threads.add(threading.get_ident()) or time.sleep(0.001))
    time.sleep(0.02)
    worker.pause()
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_an_error_of_a_job_comes_out_at_the_caller(worker):
    def fail():
        raise FileNotFoundError('no model')

    with pytest.raises(FileNotFoundError, match='no model'):
        worker.call(fail)
    assert worker.call(lambda: 7) == 7


def test_pause_returns_after_the_step_in_progress(worker):
    running, finished = threading.Event(), threading.Event()

    def step():
        running.set()
        time.sleep(0.05)
        finished.set()

    worker.repeat(step)
    assert running.wait(5.0)
    worker.pause()
    assert finished.is_set()
    finished.clear()
    running.clear()
    time.sleep(0.1)
    assert not running.is_set()


def test_a_job_is_done_between_steps(worker):
    worker.repeat(lambda: time.sleep(0.001))
    assert worker.call(lambda: 'between') == 'between'


def test_a_stopped_worker_refuses_jobs():
    worker = Worker('test_worker')
    assert worker.stop()
    assert worker.stop()
    with pytest.raises(RuntimeError, match='stopped'):
        worker.call(lambda: None)
    worker.pause()
