"""The verbs of daily use. Each imports what it needs when it is called, so that ``--help`` is instant."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from anyecg.cli.files import Batch, check_output, tokens_arrays, write_csv, write_npz, write_parquet
from anyecg.cli.printing import (
    describe,
    only_json_on_stdout,
    print_json,
    print_records,
    print_table,
    say,
    warn,
)
from anyecg.cli.program import (
    AsJson,
    AsOneJson,
    End,
    FixUnits,
    Force,
    Fs,
    ManyFiles,
    ModelName,
    OneFile,
    Start,
    Unit,
    Workers,
    app,
    need_training,
    open_model,
)


@app.command()
def info(
    files: ManyFiles,
    as_json: AsJson = False,
    fs: Fs = None,
    unit: Unit = None,
    fix_units: FixUnits = False,
    start: Start = None,
    end: End = None,
) -> None:
    """Show what is in files.

    Format, leads, rate, length, age, sex, start time, and what the reader had to bend.
    """
    from anyecg.readers import read

    batch = Batch(files)
    with only_json_on_stdout(as_json):
        found = batch.run(
            lambda path: describe(path, read(path, start_s=start, end_s=end, fs=fs, unit=unit, fix_units=fix_units))
        )
    if as_json:
        print_json(found if batch.many else found[0])
    else:
        print_records(found)
    batch.finish()


OUTPUTS = (
    "NAME or NAME.hea WFDB; .csv, .tsv a table; .edf EDF+; .dcm DICOM; .scp SCP-ECG; .xml, .aecg HL7 aECG; "
    ".parquet Parquet; .json a FHIR Observation"
)
"""What the suffix of the output means. A literal, since the writers are not imported for ``--help``."""


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="An ECG file of any known format.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help=f"The file to write: {OUTPUTS}.")],
    leads: Annotated[str | None, typer.Option("--leads", help="Keep these leads, in this order: I,II,V1")] = None,
    flac: Annotated[bool, typer.Option("--flac", help="Pack the signals of WFDB with FLAC, without loss.")] = False,
    fs: Fs = None,
    unit: Unit = None,
    fix_units: FixUnits = False,
    start: Start = None,
    end: End = None,
    force: Force = False,
) -> None:
    """Write a recording or a slice in another format.

    What the format cannot hold is said in warnings, one line each.
    """
    from anyecg.leads import standard_name
    from anyecg.readers import read
    from anyecg.writers import losses, write

    record = read(source, start_s=start, end_s=end, fs=fs, unit=unit, fix_units=fix_units)
    if leads is not None:
        record = record.pick([standard_name(name) for name in leads.split(",")])
    warn(source, record.warnings)
    chosen = "wfdb-flac" if flac else None
    lost = losses(record, target, format=chosen)
    for path in write(record, target, format=chosen, force=force):
        print(path)
    warn(target, tuple(lost))


@app.command()
def tokenize(
    file: OneFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npz file to write.")],
    model: ModelName = "nano",
    fs: Fs = None,
    unit: Unit = None,
    fix_units: FixUnits = False,
    start: Start = None,
    end: End = None,
    force: Force = False,
) -> None:
    """Write the rhythm codes of a recording.

    The .npz file also holds what is needed to decode them to mV.
    """
    check_output(output, force, [".npz"])
    from anyecg.engine import load
    from anyecg.readers import read

    loaded = load(model)
    prepared = loaded.prepare(read(file, start_s=start, end_s=end, fs=fs, unit=unit, fix_units=fix_units))
    tokens = loaded.tokenize(prepared)
    warn(file, prepared.warnings)
    write_npz(output, tokens_arrays(tokens))
    n_leads, n_fragments, n_levels = tokens.codes.shape
    print(
        f"{output}: {n_leads} lead{'s' * (n_leads != 1)} x {n_fragments} fragments of {tokens.grid.fragment_s:g} s "
        f"x {n_levels} levels, {tokens.bits_per_second:.0f} bits/s per lead"
    )


@app.command()
def embed(
    files: ManyFiles,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npz, .csv or .parquet file to write.")],
    fragments: Annotated[bool, typer.Option("--fragments", help="Store the embedding of each fragment too.")] = False,
    workers: Workers = 1,
    model: ModelName = "nano",
    fs: Fs = None,
    unit: Unit = None,
    fix_units: FixUnits = False,
    start: Start = None,
    end: End = None,
    force: Force = False,
) -> None:
    """Write embeddings, one row a file.

    With --fragments the .npz file also holds one vector a fragment of each file.
    """
    check_output(output, force, [".npz"] if fragments else [".npz", ".csv", ".parquet"])
    asked = {"start_s": start, "end_s": end, "fs": fs, "unit": unit, "fix_units": fix_units}
    batch = Batch(files)
    open_model(model, workers)  # a bad name is one error, not one a file
    work = partial(_embedded, model=model, n_workers=workers, fragments=fragments, asked=asked)
    rows = batch.run(work, n_workers=workers)
    if rows:
        _write_embeddings(output, rows)
        print(f"{output}: {len(rows)} x {len(rows[0]['pooled'])}")
    batch.finish()


def _embedded(path: Path, *, model: str, n_workers: int, fragments: bool, asked: dict[str, Any]) -> dict[str, Any]:
    """Return a file's row. Vectors of fragments only if asked for: they are hundreds of times as large."""
    from anyecg.readers import read

    loaded = open_model(model, n_workers)
    prepared = loaded.prepare(read(path, **asked))
    warn(path, prepared.warnings)
    embedding = loaded.embed(prepared)
    row = {"path": str(path), "id": prepared.id, "pooled": embedding.pooled}
    return row | ({"per_fragment": embedding.per_fragment, "leads": embedding.leads} if fragments else {})


def _write_embeddings(output: Path, rows: list[dict[str, Any]]) -> None:
    import numpy as np

    pooled = np.stack([row["pooled"] for row in rows])
    names = {key: [row[key] for row in rows] for key in ("path", "id")}
    if output.suffix.lower() == ".csv":
        header = ["path", "id", *(f"e{i}" for i in range(pooled.shape[1]))]
        write_csv(
            output, header, [[*of_row, *map(float, e)] for *of_row, e in zip(*names.values(), pooled, strict=True)]
        )
    elif output.suffix.lower() == ".parquet":
        write_parquet(output, names, "embedding", pooled)
    else:
        arrays = {key: np.array(values) for key, values in names.items()} | {"pooled": pooled}
        for i, row in enumerate(rows):
            if "per_fragment" in row:
                arrays |= {f"per_fragment_{i}": row["per_fragment"], f"leads_{i}": np.array(row["leads"])}
        write_npz(output, arrays)


@app.command()
def restore(
    file: OneFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write; its suffix says the format.")],
    leads: Annotated[
        str | None, typer.Option("--leads", help="Restore these leads: V3,V5. Absent ones are added.")
    ] = None,
    auto: Annotated[
        bool, typer.Option("--auto", help="Restore the leads whose signal quality makes them unusable.")
    ] = False,
    gaps: Annotated[
        bool, typer.Option("--gaps", help="Keep what is recorded of the leads named, fill only what is missing.")
    ] = False,
    band: Annotated[Path | None, typer.Option("--band", help="A .npz for the 5-95 % band.")] = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="Report on the result: a .html, .png or .json.")
    ] = None,
    model: ModelName = "nano",
    fs: Fs = None,
    unit: Unit = None,
    fix_units: FixUnits = False,
    start: Start = None,
    end: End = None,
    force: Force = False,
) -> None:
    """Restore missing or corrupted leads: by algebra where it is exact, else generated by the model.

    The result is at the model's rate and band. Generated leads are a guess, for research, and are marked as restored.
    """
    if bool(leads) == auto:
        raise ValueError("say which leads to restore: either --leads V3,V5 or --auto")
    if gaps and auto:
        raise ValueError("--gaps goes with --leads: unusable leads are restored whole")
    check_output(output, force)
    if band is not None:
        check_output(band, force, [".npz"])
    if report is not None:
        check_output(report, force, [".html", ".png", ".json"])
    from anyecg.analysis import analyze as analyze_one
    from anyecg.engine import load
    from anyecg.leads import standard_name
    from anyecg.readers import read
    from anyecg.report import write_report
    from anyecg.tasks.restore import restore as fill
    from anyecg.tasks.restore import unusable_leads, without
    from anyecg.writers import write

    loaded = load(model)
    source = read(file, start_s=start, end_s=end, fs=fs, unit=unit, fix_units=fix_units)
    record = loaded.prepare(source)
    warn(file, record.warnings)
    asked = [standard_name(name) for name in leads.split(",")] if leads else unusable_leads(source, record)
    if not asked:
        say(f"{file}: no lead is unusable; nothing to restore")
        return
    found = fill(record if gaps else without(record, asked), loaded, asked)
    for path in write(found.record, output, force=force):
        print(path)
    if band is not None:
        rows = {"leads": found.record.leads, "low_mv": found.low_mv, "high_mv": found.high_mv, "fs_hz": found.record.fs}
        write_npz(band, rows)
        print(band)
    if report is not None:
        write_report(analyze_one(found.record, loaded), report, force=force)
        print(report)
    for kind, names in (("computed from other leads", found.record.derived), ("generated", found.record.restored)):
        if kept := [name for name in found.record.leads if name in names and name in asked]:
            say(f"{kind}: {', '.join(kept)}")


@app.command()
def models(
    as_json: AsOneJson = False,
    presets: Annotated[
        bool, typer.Option("--presets", help="Instead, count the parameters of each preset that can be trained.")
    ] = False,
) -> None:
    """List the models at hand."""
    if presets:
        _print_presets(as_json)
        return
    from anyecg.checkpoint import list_models

    with only_json_on_stdout(as_json):
        found = list_models()
    if as_json:
        print_json(found)
        return
    columns = ["name", "version", "parameters", "licence", "sha256", "folder"]
    rows = [{**entry, "parameters": f"{entry['parameters']:,}", "sha256": entry["sha256"][:12]} for entry in found]
    print_table(columns, [[str(row[column]) for column in columns] for row in rows])


def _print_presets(as_json: bool) -> None:
    need_training()
    from anyecg.models.export import count_parameters
    from anyecg.models.sizes import PRESETS

    counts = {name: count_parameters(config) for name, config in PRESETS.items()}
    if as_json:
        print_json(counts)
        return
    rows = [[name, *(f"{n:,}" for n in (c["tokenizer"], c["encoder"], sum(c.values())))] for name, c in counts.items()]
    print_table(["preset", "tokenizer", "encoder", "parameters"], rows)
