"""Heaps on lists, as in `heapq`."""

# ruff: noqa
# mypy: ignore-errors


def heappush(heap, item):
    heap.append(item)
    _up(heap, len(heap) - 1)


def _up(heap, at):
    item = heap[at]
    while at > 0:
        parent = (at - 1) // 2
        if not item < heap[parent]:
            break
        heap[at] = heap[parent]
        at = parent
    heap[at] = item


def _down(heap, at):
    item, size = heap[at], len(heap)
    child = 2 * at + 1
    while child < size:
        if child + 1 < size and not heap[child] < heap[child + 1]:
            child += 1
        if not heap[child] < item:
            break
        heap[at] = heap[child]
        at, child = child, 2 * child + 1
    heap[at] = item


def heappop(heap):
    last = heap.pop()
    if not heap:
        return last
    first, heap[0] = heap[0], last
    _down(heap, 0)
    return first


def heapify(heap):
    for at in range(len(heap) // 2 - 1, -1, -1):
        _down(heap, at)


def heapreplace(heap, item):
    first, heap[0] = heap[0], item
    _down(heap, 0)
    return first


def heappushpop(heap, item):
    return heapreplace(heap, item) if heap and heap[0] < item else item


def nlargest(n, iterable, key=None):
    return sorted(iterable, key=key, reverse=True)[: max(n, 0)]


def nsmallest(n, iterable, key=None):
    return sorted(iterable, key=key)[: max(n, 0)]


def merge(*iterables, key=None, reverse=False):
    return iter(sorted([item for part in iterables for item in part], key=key, reverse=reverse))
