"""Questions over real text with answers that are computed: what the compact prompts are worked on with.

`python -m tests.dev_questions.run` asks them. The held-out set is over other texts in other words: it is run to
confirm a result, never to tune one.
"""
