"""What the node counts and times, and the `/diagnostics` message made of it."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

_WINDOW = 200  # results that percentiles are taken over

# In the order of an image's way through the node.
COUNTERS = (
    'lost',  # the middleware lost on the way, as far as it knows
    'received',  # images that arrived
    'unwatched',  # not processed: nobody subscribed
    'dropped',  # replaced by a newer image before their turn
    'stale',  # older than max_age_s at their turn
    'waiting',  # camera_info or pose was missing
    'bad',  # image, calibration or message that cannot be used
    'failed',  # the network raised an error
    'processed',  # detections published
)


class Health:
    """Counters, times and decisions; written by both threads of the node."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Start anew, as at every configure."""
        with self._lock:
            self._counts: Counter[str] = Counter()
            self._processing_ms: deque[float] = deque(maxlen=_WINDOW)
            self._latency_ms: deque[float] = deque(maxlen=_WINDOW)
            self._finished_s: deque[float] = deque(maxlen=_WINDOW)
            self._last_image_s: float | None = None
            self._last_trouble: tuple[float, str] | None = None
            self._failure = ''
            self._decisions: dict[str, str] = {}
            self._doubts: dict[str, str] = {}

    def count(self, what: str, number: int = 1) -> None:
        """Add to a counter of `COUNTERS`."""
        with self._lock:
            self._counts[what] += number
            if what == 'received':
                self._last_image_s = time.monotonic()

    def trouble(self, what: str, sentence: str) -> None:
        """Count an image that was not processed, and why."""
        with self._lock:
            self._counts[what] += 1
            self._last_trouble = (time.monotonic(), sentence)

    def failed_transition(self, sentence: str) -> None:
        """Remember why the node could not be configured or activated; empty: it could."""
        with self._lock:
            self._failure = sentence

    def finished(self, processing_ms: float, latency_ms: float) -> None:
        """Count a published result.

        Args:
            processing_ms: from taking the image to having published.
            latency_ms: from the image's stamp to having published, by the node's clock.
        """
        with self._lock:
            self._counts['processed'] += 1
            self._processing_ms.append(processing_ms)
            self._latency_ms.append(latency_ms)
            self._finished_s.append(time.monotonic())
            self._last_trouble = None

    def decide(self, subject: str, decision: str, doubt: str) -> None:
        """Remember which calibration or pose is in use, and what is doubtful about it."""
        with self._lock:
            self._decisions[subject] = decision
            self._doubts[subject] = doubt

    def doubt(self, subject: str, sentence: str) -> None:
        """Warn of something for as long as it is not taken back with an empty sentence."""
        with self._lock:
            self._doubts[subject] = sentence

    @property
    def counts(self) -> dict[str, int]:
        """All counters."""
        with self._lock:
            return {name: self._counts[name] for name in COUNTERS}

    def times(self) -> dict[str, float]:
        """Percentiles over the last results, milliseconds; zeros before the first."""
        with self._lock:
            series = {'processing': list(self._processing_ms), 'latency': list(self._latency_ms)}
        return {
            f'{name}_ms_p{q}': _percentile(np.array(values), q)
            for name, values in series.items()
            for q in (50, 95, 99)
        }

    def seconds_since_image(self) -> float | None:
        """Time since an image arrived, None before the first."""
        with self._lock:
            return None if self._last_image_s is None else time.monotonic() - self._last_image_s

    def status(
        self, node: str, state: str, budget_ms: float, missing: str, facts: Mapping[str, str]
    ) -> DiagnosticStatus:
        """Sum up.

        Args:
            node: fully qualified name.
            state: lifecycle state.
            budget_ms: median latency that is still fine, 0 for any.
            missing: what an active node waits for, empty if it runs.
            facts: more lines for the table, such as model and device.
        """
        counts, times = self.counts, self.times()
        with self._lock:
            span = self._finished_s[-1] - self._finished_s[0] if len(self._finished_s) > 1 else 0.0
            rate_hz = (len(self._finished_s) - 1) / span if span > 0 else 0.0
            trouble, failure = self._last_trouble, self._failure
            decisions = dict(self._decisions)
            doubts = [sentence for sentence in self._doubts.values() if sentence]
        level, message = DiagnosticStatus.OK, f'{state}, {rate_hz:.1f} images/s'
        if state != 'active' and failure:
            level, message = DiagnosticStatus.ERROR, f'{state}: {failure}'
        elif state != 'active':
            level, message = DiagnosticStatus.WARN, state
        elif trouble is not None:
            level = DiagnosticStatus.ERROR
            message = f'{missing}; the last one: {trouble[1]}' if missing else trouble[1]
        elif missing:
            level, message = DiagnosticStatus.WARN, '; '.join([missing, *doubts])
        elif doubts:
            level, message = DiagnosticStatus.WARN, '; '.join(doubts)
        elif 0 < budget_ms < times['latency_ms_p50']:
            level = DiagnosticStatus.WARN
            message = f'latency {times["latency_ms_p50"]:.0f} ms, budget {budget_ms:.0f} ms'
        table = {'state': state, **facts, **decisions, 'rate_hz': f'{rate_hz:.2f}'}
        silent_s = self.seconds_since_image()
        table['last_image'] = 'none yet' if silent_s is None else f'{silent_s:.1f} s ago'
        table |= {f'images_{name}': str(count) for name, count in counts.items()}
        table |= {name: f'{value:.1f}' for name, value in times.items()}
        return DiagnosticStatus(
            level=level,
            name=f'{node}: detections',
            message=message,
            hardware_id=facts.get('device', ''),
            values=[KeyValue(key=key, value=value) for key, value in table.items()],
        )


def diagnostic_array(stamp: object, status: DiagnosticStatus) -> DiagnosticArray:
    """Wrap one status for /diagnostics."""
    message = DiagnosticArray(status=[status])
    message.header.stamp = stamp
    return message


def _percentile(values: np.ndarray, q: float) -> float:
    return float(np.percentile(values, q)) if len(values) else 0.0
