"""Progress of commands: lines with the remaining time in a log, a bar on a terminal."""

import logging
import re

from cmkd_ros.progress import show_progress


def test_a_log_gets_a_line_now_and_then(caplog, capsys):
    with caplog.at_level(logging.INFO, 'cmkd'), show_progress('checking', seconds=0) as step:
        for done in range(3, 6):
            step(done, 10)
    lines = [record.getMessage() for record in caplog.records]
    # The first call tells what was done before; the speed is that of the rest.
    assert [line.partition(',')[0] for line in lines] == ['checking: 4 of 10', 'checking: 5 of 10']
    assert all(re.search(r', \d+:\d\d min left$', line) for line in lines)
    assert capsys.readouterr() == ('', '')


def test_a_quick_command_says_nothing(caplog):
    with caplog.at_level(logging.INFO, 'cmkd'), show_progress('checking') as step:
        step(0, 2)
        step(2, 2)
    assert not caplog.records


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setenv('FORCE_COLOR', '1')
    monkeypatch.setenv('TERM', 'xterm')
    with show_progress('checking', 4) as step:
        step(3, 4)
    assert 'checking' in capsys.readouterr().err
