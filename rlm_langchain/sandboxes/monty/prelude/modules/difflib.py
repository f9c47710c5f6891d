"""How alike two sequences are, as in `difflib`."""

# ruff: noqa
# mypy: ignore-errors


class SequenceMatcher:
    """Compares two sequences by their longest common blocks."""

    def __init__(self, isjunk=None, a="", b="", autojunk=True):
        self.isjunk, self.autojunk = isjunk, autojunk
        self.set_seqs(a, b)

    def set_seqs(self, a, b):
        self.set_seq1(a)
        self.set_seq2(b)

    def set_seq1(self, a):
        self.a, self._blocks = a, None

    def set_seq2(self, b):
        self.b, self._blocks = b, None
        self._places = {}
        for n, item in enumerate(b):
            self._places.setdefault(item, []).append(n)
        if self.autojunk and len(b) >= 200:
            often = len(b) // 100 + 1
            self._places = {item: places for item, places in self._places.items() if len(places) <= often}
        if self.isjunk:
            self._places = {item: places for item, places in self._places.items() if not self.isjunk(item)}

    def find_longest_match(self, alo=0, ahi=None, blo=0, bhi=None):
        a, b = self.a, self.b
        ahi, bhi = len(a) if ahi is None else ahi, len(b) if bhi is None else bhi
        i, j, size, lengths = alo, blo, 0, {}
        for n in range(alo, ahi):
            new = {}
            for m in self._places.get(a[n], ()):
                if m < blo:
                    continue
                if m >= bhi:
                    break
                k = new[m] = lengths.get(m - 1, 0) + 1
                if k > size:
                    i, j, size = n - k + 1, m - k + 1, k
            lengths = new
        while i > alo and j > blo and a[i - 1] == b[j - 1]:
            i, j, size = i - 1, j - 1, size + 1
        while i + size < ahi and j + size < bhi and a[i + size] == b[j + size]:
            size += 1
        return (i, j, size)

    def get_matching_blocks(self):
        if self._blocks is not None:
            return self._blocks
        waiting, found = [(0, len(self.a), 0, len(self.b))], []
        while waiting:
            alo, ahi, blo, bhi = waiting.pop()
            i, j, k = self.find_longest_match(alo, ahi, blo, bhi)
            if k:
                found.append((i, j, k))
                waiting.append((alo, i, blo, j))
                waiting.append((i + k, ahi, j + k, bhi))
        joined = []
        for i, j, k in sorted(found):
            if joined and joined[-1][0] + joined[-1][2] == i and joined[-1][1] + joined[-1][2] == j:
                joined[-1] = (joined[-1][0], joined[-1][1], joined[-1][2] + k)
            else:
                joined.append((i, j, k))
        self._blocks = joined + [(len(self.a), len(self.b), 0)]
        return self._blocks

    def get_opcodes(self):
        i = j = 0
        codes = []
        for a, b, size in self.get_matching_blocks():
            if i < a or j < b:
                tag = "replace" if i < a and j < b else "delete" if i < a else "insert"
                codes.append((tag, i, a, j, b))
            if size:
                codes.append(("equal", a, a + size, b, b + size))
            i, j = a + size, b + size
        return codes

    def ratio(self):
        length = len(self.a) + len(self.b)
        same = sum([block[2] for block in self.get_matching_blocks()])
        return 2.0 * same / length if length else 1.0

    def quick_ratio(self):
        return self.ratio()

    def real_quick_ratio(self):
        length = len(self.a) + len(self.b)
        return 2.0 * min(len(self.a), len(self.b)) / length if length else 1.0


def get_close_matches(word, possibilities, n=3, cutoff=0.6):
    scored = []
    matcher = SequenceMatcher()
    matcher.set_seq2(word)
    for possible in possibilities:
        matcher.set_seq1(possible)
        score = matcher.ratio()
        if score >= cutoff:
            scored.append((score, possible))
    return [possible for score, possible in sorted(scored, reverse=True)[:n]]


def ndiff(a, b, *args):
    out = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, a, b).get_opcodes():
        if tag == "equal":
            out.extend(["  " + line for line in a[i1:i2]])
        else:
            out.extend(["- " + line for line in a[i1:i2]])
            out.extend(["+ " + line for line in b[j1:j2]])
    return out


def unified_diff(a, b, fromfile="", tofile="", fromfiledate="", tofiledate="", n=3, lineterm="\n"):
    codes = [code for code in SequenceMatcher(None, a, b).get_opcodes()]
    if all(code[0] == "equal" for code in codes):
        return []
    out = [f"--- {fromfile}{lineterm}", f"+++ {tofile}{lineterm}"]
    for group in _grouped(codes, n):
        first, last = group[0], group[-1]
        out.append(f"@@ -{_range(first[1], last[2])} +{_range(first[3], last[4])} @@{lineterm}")
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                out.extend([" " + line for line in a[i1:i2]])
            else:
                out.extend(["-" + line for line in a[i1:i2]])
                out.extend(["+" + line for line in b[j1:j2]])
    return out


def _range(start, stop):
    length = stop - start
    if length == 1:
        return f"{start + 1}"
    return f"{start if not length else start + 1},{length}"


def _grouped(codes, n):
    if codes[0][0] == "equal":
        tag, i1, i2, j1, j2 = codes[0]
        codes[0] = (tag, max(i1, i2 - n), i2, max(j1, j2 - n), j2)
    if codes[-1][0] == "equal":
        tag, i1, i2, j1, j2 = codes[-1]
        codes[-1] = (tag, i1, min(i2, i1 + n), j1, min(j2, j1 + n))
    groups, group = [], []
    for tag, i1, i2, j1, j2 in codes:
        if tag == "equal" and i2 - i1 > 2 * n:
            group.append((tag, i1, min(i2, i1 + n), j1, min(j2, j1 + n)))
            groups.append(group)
            group, i1, j1 = [], max(i1, i2 - n), max(j1, j2 - n)
        group.append((tag, i1, i2, j1, j2))
    if group and not (len(group) == 1 and group[0][0] == "equal"):
        groups.append(group)
    return groups
