"""What a run shows of itself, in a pipe and on a terminal."""

import io

from hyperlax.results import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_pipe_gets_a_line_every_half_minute_and_one_at_the_end():
    now, out = [0.0], io.StringIO()
    progress = Progress(8, 4_000_000, stream=out, clock=lambda: now[0])
    for second in range(0, 101, 10):
        now[0] = float(second)
        progress.update(second // 20, second * 20_000, second / 200, best=(3, 481.234))
    progress.close()
    progress.close()
    lines = out.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0] == (
        " 15% 1/8 configurations done, 600k/4M env steps, 20k steps/s, best 481.2 (sample 3), 30s elapsed, 2m50s left"
    )
    assert lines[-1].startswith(" 50% 5/8 configurations done, 2M/4M env steps, 20k steps/s")
    assert "\x1b" not in out.getvalue() and "\r" not in out.getvalue()


def test_time_left_follows_work_and_not_what_was_done_before():
    now, out = [0.0], io.StringIO()
    progress = Progress(2, 0, stream=out, clock=lambda: now[0])
    now[0] = 20.0
    progress.update(1, 900, 0.5)  # resumed half-way; compiling took 20 s
    now[0] = 30.0
    progress.update(1, 1000, 0.6)
    assert out.getvalue() == " 60% 1/2 configurations done, 1k env steps, 10 steps/s, 30s elapsed, 40s left\n"


def test_disabled_shows_nothing():
    out = io.StringIO()
    with Progress(1, 1, enabled=False, stream=out) as progress:
        progress.update(1, 1, 1.0)
    assert out.getvalue() == ""


def test_terminal_gets_a_bar():
    now, out = [0.0], Terminal()
    with Progress(4, 100, stream=out, clock=lambda: now[0]) as progress:
        now[0] = 5.0
        progress.update(3, 50, 0.5, best=(2, -3.5), note="saving")
    shown = " ".join(out.getvalue().split())
    assert "━" in shown
    assert (
        "50% 3/4 configurations done, 50/100 env steps, 10 steps/s, best -3.5 (sample 2), 5s elapsed, 5s left, saving"
        in shown
    )
