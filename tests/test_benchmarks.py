"""The benchmarks: reading the reports of wrk, and starting."""

import os
import subprocess
import sys

from django.conf import settings

from tests.benchmarks.api import latencies

REPORT = """\
Running 4s test @ http://127.0.0.1:3999/api/ports
  2 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     6.66ms    2.69ms  20.87ms   60.50%
    Req/Sec   447.65    154.86   690.00     91.99%
  Latency Distribution
     50%    6.51ms
     75%    8.27ms
     90%    9.98ms
     99%   14.72ms
  893 requests in 1.00s, 1.08MB read
Requests/sec:    890.56
"""


def test_latencies_are_read_from_the_distribution_only() -> None:
    assert latencies(REPORT) == ["6.51ms", "14.72ms"]


def test_a_report_without_a_distribution_has_no_latencies() -> None:
    assert latencies(REPORT.split("  Latency Distribution")[0]) == ["?", "?"]


def test_the_command_starts_without_settings() -> None:
    """Its modules must not need Django before the scratch Portal is there."""
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "nothing"],
        cwd=settings.BASE_DIR,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stderr.startswith("There is no benchmark nothing. Choose from allocator,")
