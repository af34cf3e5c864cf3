"""Format figures for people."""


def readable(value: float | None) -> str:
    """Return a number with three significant digits."""
    if value is None:
        return "-"
    if abs(value) >= 100:  # noqa: PLR2004 - three digits
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread(values: list[float]) -> str:
    """Return the range of the values."""
    if len(values) < 2:  # noqa: PLR2004 - one value has no spread
        return ""
    return f"{readable(min(values))} to {readable(max(values))}"


def times(ratio: float | None) -> str:
    """Return a ratio as text."""
    return "" if ratio is None else f"{ratio:.2f}x"
