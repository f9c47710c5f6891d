"""A strategy for texts with headings in Markdown: look at the outline before anything else."""

from rlm_langchain import Strategy

GUIDANCE = """\
The context may have headings in Markdown. `outline(text)` lists them as `(level, title, start, end)`; read only the
sections that matter:

```repl
for level, title, start, end in outline(context):
    print("  " * level, title, end - start)
```
"""

PRELUDE = """
def outline(text):
    found = []
    place = 0
    for line in text.split("\\n"):
        level = len(line) - len(line.lstrip("#"))
        if 0 < level <= 6 and line[level:level + 1] == " ":
            found.append((level, line[level:].strip(), place))
        place += len(line) + 1
    ends = [start for _, _, start in found[1:]] + [len(text)]
    return [(level, title, start, end) for (level, title, start), end in zip(found, ends)]
"""

headings = Strategy(
    name="headings",
    description="Texts with headings in Markdown: goes by their outline.",
    guidance=GUIDANCE,
    prelude=PRELUDE,
)
