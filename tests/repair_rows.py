from typing import Any, get_type_hints

from secateurs.results import RepairRow


def make_repair_row(stage: int, **changes: Any) -> RepairRow:
    values = {
        name: 0 if kind in (int, float, int | None, float | None) else ""
        for name, kind in get_type_hints(RepairRow).items()
        if name in RepairRow.columns()
    }
    return RepairRow(**values | {"stage": stage} | changes)
