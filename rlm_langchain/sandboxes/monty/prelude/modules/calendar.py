"""Names of months and days, and lengths of months, as in `calendar`."""

# ruff: noqa
# mypy: ignore-errors

from datetime import date as _date

month_name = [
    "",
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
month_abbr = [name[:3] for name in month_name]
day_name = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
day_abbr = [name[:3] for name in day_name]


def isleap(year):
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def leapdays(y1, y2):
    return len([year for year in range(y1, y2) if isleap(year)])


def weekday(year, month, day):
    return _date(year, month, day).weekday()


def monthrange(year, month):
    days = (31, 29 if isleap(year) else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    return (weekday(year, month, 1), days[month - 1])
