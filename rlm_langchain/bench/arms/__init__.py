"""The arms of a benchmark: ways to answer a question about a long text. Each is a plug-in."""
