"""Text between two lines of a page that is otherwise written by hand."""


def filled(text: str, name: str, block: str) -> str:
    """The text with `block` between `<!-- NAME ... -->` and `<!-- end -->`."""
    head, start, rest = text.partition(f"<!-- {name}")
    said, arrow, rest = rest.partition("-->")
    _old, end, tail = rest.partition("<!-- end -->")
    if not end:
        raise ValueError(f"expected '<!-- {name} ... -->' and '<!-- end -->' after it")
    return f"{head}{start}{said}{arrow}\n\n{block.strip()}\n\n{end}{tail}"
