"""Averages and spreads, as in `statistics`."""

# ruff: noqa
# mypy: ignore-errors

import math

StatisticsError = ValueError


def _list(data, least=1):
    data = list(data)
    if len(data) < least:
        raise StatisticsError(
            "this needs at least one data point" if least == 1 else "this needs at least two data points"
        )
    return data


def fmean(data, weights=None):
    data = _list(data)
    if weights is None:
        return math.fsum(data) / len(data)
    weights = list(weights)
    return math.fsum([x * w for x, w in zip(data, weights)]) / math.fsum(weights)


def mean(data):
    data = _list(data)
    total = math.fsum(data) if any(isinstance(x, float) for x in data) else sum(data)
    value = total / len(data)
    if all(isinstance(x, int) for x in data) and value == int(value):
        return int(value)
    return value


def median(data):
    data = sorted(_list(data))
    half = len(data) // 2
    return data[half] if len(data) % 2 else (data[half - 1] + data[half]) / 2


def median_low(data):
    data = sorted(_list(data))
    return data[(len(data) - 1) // 2]


def median_high(data):
    data = sorted(_list(data))
    return data[len(data) // 2]


def _counts(data):
    counts = {}
    for item in data:
        counts[item] = counts.get(item, 0) + 1
    return counts


def mode(data):
    counts = _counts(_list(data))
    most = max(counts.values())
    return [item for item, n in counts.items() if n == most][0]


def multimode(data):
    counts = _counts(data)
    most = max(counts.values()) if counts else 0
    return [item for item, n in counts.items() if n == most]


def _squares(data, center):
    center = fmean(data) if center is None else center
    return math.fsum([(x - center) ** 2 for x in data])


def variance(data, xbar=None):
    data = _list(data, 2)
    return _tidy(_squares(data, xbar) / (len(data) - 1), data)


def pvariance(data, mu=None):
    data = _list(data)
    return _tidy(_squares(data, mu) / len(data), data)


def _tidy(value, data):
    return int(value) if all(isinstance(x, int) for x in data) and value == int(value) else value


def stdev(data, xbar=None):
    return math.sqrt(variance(data, xbar))


def pstdev(data, mu=None):
    return math.sqrt(pvariance(data, mu))


def geometric_mean(data):
    data = _list(data)
    return math.exp(math.fsum([math.log(x) for x in data]) / len(data))


def harmonic_mean(data):
    data = _list(data)
    return len(data) / math.fsum([1 / x for x in data])


def quantiles(data, *, n=4, method="exclusive"):
    data = sorted(_list(data, 2))
    size, cuts = len(data), []
    for i in range(1, n):
        if method == "inclusive":
            j, rest = divmod(i * (size - 1), n)
            cuts.append((data[j] * (n - rest) + data[min(j + 1, size - 1)] * rest) / n)
        else:
            j = min(max(i * (size + 1) // n, 1), size - 1)
            rest = i * (size + 1) - j * n
            cuts.append((data[j - 1] * (n - rest) + data[j] * rest) / n)
    return cuts


def correlation(x, y):
    x, y = list(x), list(y)
    mx, my = fmean(x), fmean(y)
    over = math.fsum([(a - mx) * (b - my) for a, b in zip(x, y)])
    return over / math.sqrt(_squares(x, mx) * _squares(y, my))
