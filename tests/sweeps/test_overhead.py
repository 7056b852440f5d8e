"""What the scheduler costs."""

from tests.sweeps.overhead import measure


def test_the_scheduler_costs_less_than_50_ms_a_job():
    figures = [measure(30) for _ in range(3)]  # best of 3: the machine may be busy
    assert min(f["own"] for f in figures) < 50, figures
    assert min(f["cpu"] for f in figures) < 50, figures
