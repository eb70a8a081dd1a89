"""The verb ``analyze``: a report on recordings of any length, also on one that is still growing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anyecg.cli.files import Batch, check_output, encoded, make_folder, output_names, write_whole
from anyecg.cli.printing import only_json_on_stdout, print_json, say, to_json, warn
from anyecg.cli.program import (
    AsJson,
    End,
    FixUnits,
    Force,
    Fs,
    ManyFiles,
    ModelName,
    Start,
    Unit,
    Workers,
    app,
    open_model,
)

if TYPE_CHECKING:
    from anyecg.engine import Model
    from anyecg.result import Result


@app.command()
def analyze(
    files: ManyFiles,
    as_json: AsJson = False,
    report: Annotated[Path | None, typer.Option("--report", help="Report on one file: a .html, .png or .json.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for a .html and a .json of each file.")] = None,
    tables: Annotated[
        bool,
        typer.Option(
            "--tables", help="With --out: also beats, minutes and hours (.parquet) and WFDB annotations (.atr) of each."
        ),
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on while the file grows; print what is known every few seconds.")
    ] = False,
    every: Annotated[float, typer.Option("--every", help="With --follow: seconds between two lines.")] = 5.0,
    idle: Annotated[
        float, typer.Option("--idle", help="With --follow: end when nothing came for so many seconds.")
    ] = 60.0,
    state: Annotated[
        Path | None,
        typer.Option("--state", help="Where a long analysis keeps what it has found; stopped, the next run goes on."),
    ] = None,
    workers: Workers = 1,
    model: ModelName = "nano",
    fs: Fs = None,
    unit: Unit = None,
    fix_units: FixUnits = False,
    start: Start = None,
    end: End = None,
    force: Force = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="With --out: leave alone what has its reports; write the others.")
    ] = False,
) -> None:
    """Report on recordings of any length.

    Signal quality, heart rate and rhythm figures, episodes, and how far a recording lies from normal ones. Without
    options a readable summary is printed. A file of more than ten minutes is read in stretches: memory does not grow
    with its length. With --report or --out the analysis of a long file that was stopped is taken up again by the same
    command; of many files, add --resume.
    """
    batch = Batch(files, out)
    if batch.many and (report is not None or state is not None or follow):
        raise ValueError("--report, --state and --follow are for one file; for several give a folder with --out")
    if follow and (fix_units or (start, end, state) != (None, None, None)):
        raise ValueError(
            "--follow takes a recording as it comes: it goes without --start, --end, --fix-units and --state"
        )
    if tables and out is None:
        raise ValueError("--tables goes with --out FOLDER")
    if resume and (out is None or as_json):
        raise ValueError("--resume goes with --out FOLDER, and without --json: the list would not be complete")
    if report is not None:
        check_output(report, force, [".html", ".png", ".json"])
    suffixes = (".html", ".json", *(TABLES if tables else ()))
    names = output_names(batch.files, out, force or resume, suffixes) if out else {}
    if resume and out:
        batch.leave([p for p in batch.files if all((out / f"{names[p]}{suffix}").exists() for suffix in suffixes)])

    if workers > 1 and not (as_json or out):
        raise ValueError("--workers goes with --out FOLDER or --json: summaries of several files would mingle")

    open_model(model, workers)  # a bad name is one error, not one a file
    work = _Analysis(
        model=model,
        n_workers=workers,
        asked={"start_s": start, "end_s": end, "fs": fs, "unit": unit, "fix_units": fix_units},
        follow=(every, idle) if follow else None,
        state=state,
        report=report,
        out=out,
        names=names,
        tables=tables,
        force=force or resume,  # of a file that has not all of its reports, those it has
        many=batch.many,
        as_json=as_json,
    )
    with only_json_on_stdout(as_json):
        documents = batch.run(work, streams=not as_json and out is None, n_workers=workers)
    if as_json:
        print_json(documents if batch.many else documents[0])
    if out is not None:
        say(f"{out}: {len(documents)} report{'s' * (len(documents) != 1)} written")
    elif report is not None:
        say(f"{report}: written")
    batch.finish()


@dataclass(frozen=True)
class _Analysis:
    """What was asked of each file; called with one, it analyses it and writes its reports. Worker processes get it."""

    model: str
    n_workers: int
    asked: dict[str, Any]
    follow: tuple[float, float] | None
    state: Path | None
    report: Path | None
    out: Path | None
    names: dict[Path, str]
    tables: bool
    force: bool
    many: bool
    as_json: bool

    def __call__(self, path: Path) -> dict[str, Any] | None:
        """Return the file's document, if it will be printed."""
        from anyecg.report import write_report
        from anyecg.report.text import summary

        result = self._result(path)
        document = {"path": str(path), **result.to_dict()} if self.as_json or self.out else None
        if not self.as_json and not (self.out and self.many):
            print(summary(result) + ("\n" if self.many else ""), flush=True)  # before what a full disk may prevent
        if self.report is not None:
            write_report(result, self.report, force=self.force)
        if self.out is not None:
            make_folder(self.out)  # not before there is something to write
            stem = self.out / self.names[path]
            write_report(result, Path(f"{stem}.html"), force=self.force)
            write_whole(Path(f"{stem}.json"), encoded(to_json(document)))
            for suffix in TABLES if self.tables else ():
                write_whole(Path(f"{stem}{suffix}"), _table(result, suffix))
        return document if self.as_json else None

    def _result(self, path: Path) -> "Result":
        from anyecg.analysis import analyze_file

        model = open_model(self.model, self.n_workers)
        if self.follow is not None:
            return _follow(path, model, *self.follow, fs=self.asked["fs"], unit=self.asked["unit"])
        with _hours_done(path, shown=not self.many) as told:
            return analyze_file(
                path,
                model,
                **self.asked,
                state=self._kept_in(path),
                progress=told,
                tell=lambda line: warn(path, (line,)),
            )

    def _kept_in(self, path: Path) -> Path | None:
        """Return where to keep the state of a long analysis: hidden, beside what it will write."""
        if self.state is not None or (self.report is None and self.out is None):
            return self.state
        target = self.report or (self.out or Path()) / self.names[path]
        return target.with_name(f".{target.name}.analysis")


TABLES = (".beats.parquet", ".minutes.parquet", ".hours.parquet", ".atr")


def _table(result: "Result", suffix: str) -> bytes:
    """Return a table or the annotations of a result; the suffix says which."""
    from anyecg.report.tables import annotations, beats_table, hours_table, minutes_table

    make = dict(zip(TABLES, (beats_table, minutes_table, hours_table, annotations), strict=True))
    return make[suffix](result)


@contextmanager
def _hours_done(path: Path, *, shown: bool) -> Iterator[Callable[[float], None] | None]:
    """Show how much of a long recording is done, on a terminal."""
    import sys

    if not shown or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = BarColumn(), TextColumn("{task.completed:.1f} of {task.total:.1f} h"), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as progress:
        tasks: list[Any] = []

        def told(seconds: float) -> None:
            if not tasks:
                from anyecg.readers import extent

                tasks.append(progress.add_task("", total=extent(path).duration_s / 3600))
            progress.update(tasks[0], completed=seconds / 3600)

        yield told


def _follow(path: Path, model: "Model", every: float, idle: float, **given: Any) -> "Result":
    """Print a line every few seconds while a file grows; Ctrl-C ends the recording, not the report."""
    from anyecg.analysis import follow_file

    if not every > 0:
        raise ValueError(f"--every is {every:g}, allowed is a number of seconds above 0")
    result = None
    for result in follow_file(path, model, every_s=every, idle_s=idle, **given):
        say(_line(result))
    if result is None:
        from anyecg.errors import ReadError

        raise ReadError(
            f"{path}: nothing could be analysed while waiting, expected a growing recording. Check the file."
        )
    return result


def _line(result: "Result") -> str:
    """Return what is known of a growing recording, on one line."""
    from anyecg.report.layout import clock
    from anyecg.report.text import quality_words, rhythm_words

    episodes = [f for f in result.findings if f.kind == "rhythm" and f.start_s > 0]
    last = f"; last: {episodes[-1].name} at {clock(episodes[-1].start_s)}" if episodes else ""
    return f"{clock(result.duration_s)}  {rhythm_words(result)}; {quality_words(result)}{last}"
