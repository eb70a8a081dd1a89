"""Quality: is it right. One row of the table a command, every baseline in the same run.

    python benchmarks/quality                    # every row, one after another; finished parts are kept, so it resumes
    python benchmarks/quality superclasses       # one row

Each row prints its table and writes it as JSON and Markdown. Only test patients are measured; everything is fitted on
split train and chosen on split val. Databases: see the README; they are subsets, so published figures are not
comparable.
"""

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path

import anyecg

ROWS = {
    "tokenizer": "how much codes keep, at equal bits a second",
    "ablations": "what parts of the method are worth",
    "superclasses": "12-lead diagnosis at 1, 10 and 100 % of the labels",
    "rhythm": "single-lead rhythm",
    "beats": "beat classes between patients",
    "usable": "which recordings are fit to be read",
    "r_peaks": "beats found, on whole records and in noise",
    "anomaly": "one-class anomaly",
    "left_out": "one-class anomaly in sources that no stage has seen",
    "restoration": "corrupted-lead generation",
    "long": "episodes and burden in long recordings",
    "paroxysmal": "a second level over windows: paroxysmal atrial fibrillation from half an hour",
    "fibrillation": "false alarms of ventricular fibrillation",
    "flutter": "atrial flutter as an episode: by beats, and why not by waves",
    "audits": "electrodes in the wrong place",
    "robustness_probe": "diagnosis from worse, and from other, recordings of the same heart",
    "objectives": "masked codes against SimCLR, BYOL and MAE",
}
"""Each row is the module of its name beside this file: ``run(model, data, work, progress)`` and ``tables(numbers)``."""


def main() -> None:
    """Run the rows asked for; print each table, write it."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/quality",
        description=__doc__,
        epilog="rows:\n" + "\n".join(f"  {name:14} {what}" for name, what in ROWS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="default: all")
    parser.add_argument("--model", default="nano", help="name or folder of a checkpoint")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the restored databases and splits.csv")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"), help="where tables go")
    parser.add_argument("--work", type=Path, default=Path("runs/quality"), help="where finished parts are kept")
    wanted = parser.parse_args()
    unknown = [name for name in wanted.rows if name not in ROWS]
    if unknown:
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(ROWS)}")

    model = anyecg.load(wanted.model)
    wanted.out.mkdir(parents=True, exist_ok=True)
    for name in wanted.rows or ROWS:
        row = import_module(name)
        work = wanted.work / name
        work.mkdir(parents=True, exist_ok=True)
        numbers = row.run(model, wanted.data, work, lambda line: print(line, file=sys.stderr, flush=True))
        made_by = f"python benchmarks/quality {name}"
        heading = (
            f"# Quality: {ROWS[name]}\n\n`{made_by}`, {model.checkpoint.name} {model.checkpoint.config['version']}.\n\n"
        )
        text = heading + row.tables(numbers)
        print(text)
        stem = wanted.out / f"quality_{name}"
        stem.with_suffix(".json").write_text(json.dumps({"command": made_by, **numbers}, indent=1) + "\n")
        stem.with_suffix(".md").write_text(text + "\n")


if __name__ == "__main__":
    main()
