"""Arms of a benchmark: methods of answering a question about a long text. Each is a plug-in."""
