"""x"""
def markdown(rows: list[list[str]]) -> str:
    """`rows`, the first the head, as a Markdown table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])
