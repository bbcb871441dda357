"""What ``secateurs retrain`` says and writes once networks are trained: tables, masks, curves."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from secateurs._console import say
from secateurs._io.durable import replace_files
from secateurs.checkpoint.compression import compressed_size
from secateurs.cli.standard_output import Stdout, drawn
from secateurs.masks._sparsity import sparsity
from secateurs.report import markdown_table, plot_rows, print_table
from secateurs.report.retrain_outcomes import layer_table, size_table
from secateurs.report.text_table import show_tables
from secateurs.results import RetrainRow, write_layer_rows
from secateurs.selection.selection_options import SelectionOptions
from secateurs.training.mask_state import masks_from_zeros
from secateurs.training.measured_columns import kept_layers
from secateurs.training.retrain import BEST, DENSE, LAST, MASKS, STATE
from secateurs.zoo.weights_file import read_weights


def row_line(row: RetrainRow) -> str:
    """A finished epoch, or a score on test images, in one line."""
    is_epoch = row.split == "validation"
    what = f"{row.phase} epoch {row.epoch}" if is_epoch else row.phase
    loss = f"loss {row.train_loss:.3f}, " if is_epoch else ""
    return (
        f"seed {row.seed}, {what}: {loss}top-1 {row.top1:.2f} ({row.split}), "
        f"{100 * row.achieved:.1f}% pruned, {row.duration:.1f} s"
    )


def files_of_runs(folder: Path) -> list[Path]:
    """The files of weights, masks and states in the folder of a run, and of each of its seeds."""
    names = (STATE, DENSE, BEST, LAST, MASKS)
    return [own / name for own in (folder, *folder.glob("seed-*")) for name in names]


def clear(folder: Path) -> None:
    """Remove what another run left in a folder."""
    for path in files_of_runs(folder):
        path.unlink(missing_ok=True)


def write_masks(model: nn.Module, folder: Path, options: SelectionOptions) -> None:
    """Write the masks of the best network, which the model is after its run."""
    which = vars(options.layer_choice)
    if sparsity(model, **which).zeros:
        masks_from_zeros(model, **which).save(folder / MASKS)


def report(
    rows: Sequence[RetrainRow],
    folder: Path,
    last: Path,
    model: nn.Module,
    options: SelectionOptions,
    title: str | None,
) -> None:
    """Print and write the tables, and draw the curves.

    Args:
        rows: of all seeds.
        folder: of the run.
        last: where the weights of the last seed are.
        model: the best network of that seed.
        options: which of its weights compete.
        title: of the plot.
    """
    counted = sparsity(model, **vars(options.layer_choice))
    of_seed = "" if last == folder else f", of the last seed ({last.name})"
    tables = [
        layer_table(
            [(x.name, x.total, x.total - x.zeros) for x in counted.layers],
            f"Weights kept in each layer{of_seed}:",
        ),
        size_table(
            [(name, *_sizes(last / name)) for name in (DENSE, BEST)],
            f"Size on disk, as it is and as one zstd stream{of_seed}:",
        ),
    ]
    below = "".join(f"\n{table.title}\n\n{table.markdown()}\n" for table in tables)
    with Stdout(written=True) as stdout:
        stdout.table(lambda console: print_table(rows, console))
        stdout.table(lambda console: show_tables(console, tables))
        replace_files({folder / "table.md": f"{markdown_table(rows)}{below}".encode()})
        kept = kept_layers(model, read_weights(str(last / DENSE)), rows[-1], options)
        write_layer_rows(folder, kept)
        plots = drawn(lambda: plot_rows(rows, folder / "curves", title=title))
        names = ["results.csv", "results.jsonl", "table.md", *(plot.name for plot in plots)]
        masks = f", {BEST} and {MASKS}" if counted.zeros else f" and {BEST}"
        say(f"wrote {', '.join(names)} to {folder}; {DENSE}{masks} are in {last}")


def _sizes(path: Path) -> tuple[int, int]:
    """Bytes of a file, as it is and compressed as `secateurs prune --compress` does."""
    content = path.read_bytes()
    return len(content), compressed_size(content)
