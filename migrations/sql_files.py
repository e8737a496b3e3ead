"""Reading the hand-written SQL beside the migrations."""

from pathlib import Path

SQL = Path(__file__).parent / "sql"


def statements(name: str) -> list[str]:
    return split((SQL / name).read_text())


def split(sql: str) -> list[str]:
    """Statements of a file of ours: they end with a semicolon at a line's end, outside `$$`."""
    found: list[str] = []
    block: list[str] = []
    for line in sql.splitlines():
        if line.startswith("--"):
            continue
        block.append(line)
        if line.rstrip().endswith(";") and "\n".join(block).count("$$") % 2 == 0:
            found.append("\n".join(block).strip())
            block = []
    return [statement for statement in found if statement]
