"""Says at the end of a run how many hostile programs each sandbox contained."""

from rlm_langchain.testing.conformance.hostile import summary


def pytest_terminal_summary(terminalreporter):
    lines = summary(terminalreporter.stats)
    if lines:
        terminalreporter.section("hostile programs")
    for line in lines:
        terminalreporter.write_line(line)
