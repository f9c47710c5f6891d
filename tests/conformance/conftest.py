"""Says at the end of a run how many hostile programs each sandbox contained, and how many ordinary cells it ran."""

from rlm_langchain.testing.conformance.hostile import summary


def ordinary(stats):
    """The lines that tests have left under this name."""
    reports = [report for outcome in ("passed", "failed") for report in stats.get(outcome, ())]
    kept = [pair for report in reports if report.when == "call" for pair in report.user_properties]
    return [line for name, line in kept if name == "ordinary cells"]


def pytest_terminal_summary(terminalreporter):
    stats = terminalreporter.stats
    for title, lines in (("hostile programs", summary(stats)), ("ordinary cells", ordinary(stats))):
        if lines:
            terminalreporter.section(title)
        for line in lines:
            terminalreporter.write_line(line)
