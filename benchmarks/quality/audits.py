"""Row ``audits``: electrodes in the wrong place, as `anyecg.readers.audit` says them of every record that is read.

Each test record is read as it is (a warning is a false alarm, though some records truly are interchanged), and
audited again with its leads as an interchange of electrodes would have made them. The usual beat that the audit
compares with is fitted on split train, its threshold was chosen on split val.

    python benchmarks/quality/audits.py --data data    # fit the usual beat again, and write it into the package
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.engine import Model
from anyecg.metrics import patient_bootstrap
from anyecg.readers import read_source
from anyecg.readers.audit import audit
from anyecg.readers.audits import electrodes
from anyecg.readers.audits.heartbeats import find_heartbeats
from anyecg.readers.audits.pieces import most_recorded, telling_leads
from anyecg.record import Record
from anyecg.training.datasets import read_splits

DATABASES = ("ptb-xl", "cinc2021", "code-15", "ludb")
STORED = Path(electrodes.__file__).with_name("usual_beat.json")

OWN_VARIANCE = 0.3
"""Share of each feature's own variance in the covariance, the rest being that of the training beats: of 0.3, 0.5 and
0.7 the one at which inverted chest leads of split val are found most often, at one false alarm in a hundred."""

LEFT_OVER = 0.05
"""Of lead II or III, between two electrodes on the legs."""

CONTRADICT = "limb leads contradict"

SAYS = ("possibly inverted", "reverse order", "nearly flat", CONTRADICT)
"""Words of the warnings about electrodes."""

Change = Callable[[dict[str, np.ndarray]], None]
"""Of the eight measured leads, in place."""


def limbs(one: tuple[float, float], two: tuple[float, float]) -> Change:
    """Return the change that makes new leads I and II of sums of the old."""

    def change(lead: dict[str, np.ndarray]) -> None:
        first, second = lead["I"], lead["II"]
        lead["I"], lead["II"] = one[0] * first + one[1] * second, two[0] * first + two[1] * second

    return change


def inverted(*names: str) -> Change:
    """Return the change that turns leads over."""
    return lambda lead: lead.update({name: -lead[name] for name in names})


def reversed_chest(lead: dict[str, np.ndarray]) -> None:
    """Put the chest electrodes on in reverse order."""
    chest = [lead[f"V{i}"] for i in range(6, 0, -1)]
    lead.update({f"V{i + 1}": row for i, row in enumerate(chest)})


CHANGES: dict[str, tuple[Change, str]] = {
    "every lead inverted": (inverted(*electrodes.LEADS), "every lead"),
    "arms interchanged": (limbs((-1, 0), (-1, 1)), "lead I is possibly inverted"),
    "right arm, left leg": (limbs((1, -1), (0, -1)), "lead II is possibly inverted"),
    "left arm, left leg": (limbs((0, 1), (1, 0)), "left arm and left leg"),
    "right arm, right leg": (limbs((1, -1 + LEFT_OVER), (0, LEFT_OVER)), "lead II is nearly flat"),
    "left arm, right leg": (limbs((LEFT_OVER, 1 - LEFT_OVER), (0, 1)), "lead III is nearly flat"),
    **{f"V{i} inverted": (inverted(f"V{i}"), f"V{i} is possibly") for i in range(1, 7)},
    "V1 to V6 reversed": (reversed_chest, "reverse order"),
}
"""What is done to a record, and what the warning that names it says."""


def changed(record: Record, change: Change) -> Record:
    """Return the twelve leads as they would have been recorded; the six limb leads follow from I and II."""
    lead = {name: record.signal[record.leads.index(name)] for name in electrodes.LEADS}
    change(lead)
    one, two = lead["I"], lead["II"]
    lead |= {"III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
    return record.with_(signal=np.stack([lead[name] for name in record.leads]), warnings=())


def records(data: Path, split: str) -> Iterator[tuple[str, Record]]:
    """Yield patient and record of the twelve-lead databases, unchecked."""
    for database, rows in read_splits(data / "splits.csv").items():
        for name, (patient, own) in rows.items() if database in DATABASES else ():
            if own == split:
                record = read_source(data / database / f"{name}.hea", None, None, None, None)
                yield f"{database}/{patient}", record.pick(record.leads[:12])


def fit(data: Path) -> dict[str, list[Any]]:
    """Return mean and inverse covariance of the usual beat over split train."""
    found = []
    for _, raw in records(data, "train"):
        record = audit(raw.id, raw)
        beats = find_heartbeats(most_recorded(record, telling_leads(record.leads)), record.fs)
        beat = None if beats is None else electrodes.median_beat(record, beats)
        if beat is not None:
            found.append(electrodes.features(beat))
    features = np.array(found)
    covariance = np.cov(features.T)
    covariance = (1 - OWN_VARIANCE) * covariance + OWN_VARIANCE * np.diag(np.diag(covariance))
    precision = np.linalg.inv(covariance)
    return {"mean": np.round(features.mean(axis=0), 3).tolist(), "precision": np.round(precision, 2).tolist()}


def textbook(record: Record) -> dict[str, bool]:
    """Return what the rule in textbooks says: P and QRS of aVR up and of II down; or P, QRS and T of lead I down."""
    beats = find_heartbeats(most_recorded(record, telling_leads(record.leads)), record.fs)
    beat = None if beats is None else electrodes.median_beat(record, beats)
    if beat is None:
        return {}
    p, qrs, t = electrodes.features(beat).reshape(3, 8)
    avr = electrodes.features(np.repeat(-(beat[:1] + beat[1:2]) / 2, 8, axis=0)).reshape(3, 8)[:, 0]
    one_down = p[0] < 0 and qrs[0] < 0 and t[0] < 0
    return {
        "every lead inverted": bool(avr[0] > 0 and avr[1] > 0 and p[1] < 0 and qrs[1] < 0 and qrs[7] < 0),
        "arms interchanged": bool(one_down and qrs[7] > 0),
    }


def run(model: Model, data: Path, work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Count warnings on records as they are, and on changed copies."""
    refit, stored = fit(data), json.loads(STORED.read_text())
    off = max(float(np.abs(np.array(refit[key]) - np.array(stored[key])).max()) for key in refit)
    progress(f"audits: the usual beat fitted again differs by at most {off:g} from the stored one")
    numbers: dict[str, Any] = {"refit_differs_by": off, "threshold": electrodes.NEARER, "splits": {}}
    for split in ("val", "test"):
        patients, said, rules = [], [], []
        for patient, raw in records(data, split):
            record = audit(raw.id, raw).with_(warnings=())
            patients.append(patient)
            copies = [record, *(changed(record, change) for change, _ in CHANGES.values())]
            said.append([[w for w in audit(raw.id, copy).warnings if any(s in w for s in SAYS)] for copy in copies])
            rules.append([textbook(copy) for copy in copies])
        numbers["splits"][split] = counted(np.array(patients), said, rules)
        progress(f"audits: {split} done")
    return numbers


def counted(patients: np.ndarray, said: list[list[list[str]]], rules: list[list[dict[str, bool]]]) -> dict[str, Any]:
    """Return shares of records with their intervals: false alarms, what was found, what was named right."""

    def share(hits: list[bool]) -> dict[str, Any]:
        mask = np.array(hits, dtype=np.float64)
        interval = patient_bootstrap(lambda rows: float(mask[rows].mean()), patients)
        return {"share": float(mask.mean()), "interval": interval, "records": int(mask.sum())}

    found: dict[str, Any] = {
        "n_records": len(said),
        "n_patients": len(set(patients.tolist())),
        "false_alarms": share([any(CONTRADICT not in w for w in row[0]) for row in said]),
        "contradictions": share([any(CONTRADICT in w for w in row[0]) for row in said]),
        "false_alarms_by_text": {},
        "found": {},
        "textbook_false_alarms": {},
        "textbook_found": {},
    }
    for text in sorted({w.partition(" (")[0] for row in said for w in row[0]}):
        found["false_alarms_by_text"][text] = sum(any(w.startswith(text) for w in row[0]) for row in said)
    for i, (name, (_, words)) in enumerate(CHANGES.items(), start=1):
        any_, own = share([bool(row[i]) for row in said]), share([any(words in w for w in row[i]) for row in said])
        found["found"][name] = {"said": any_, "named": own}
        if name in rules[0][0]:
            found["textbook_found"][name] = share([row[i].get(name, False) for row in rules])
            found["textbook_false_alarms"][name] = share([row[0].get(name, False) for row in rules])
    return found


def tables(numbers: dict[str, Any]) -> str:
    """Return the table in Markdown."""
    test = numbers["splits"]["test"]

    def shown(value: dict[str, Any]) -> str:
        low, high = value["interval"]
        return f"{100 * value['share']:.1f} ({100 * low:.1f}-{100 * high:.1f})"

    lines = [
        f"Split test of {', '.join(DATABASES)}: {test['n_records']} records of {test['n_patients']} patients. In "
        "brackets 95 % intervals, patients drawn anew. Interchanges are made of the leads by algebra: each record is "
        "once as it is, and once changed in each way, so the prevalence is by design.",
        "",
        "| changed | warned of, % | named, % | textbook's rule, % |",
        "| --- | --- | --- | --- |",
    ]
    for name, value in test["found"].items():
        rule = test["textbook_found"].get(name)
        lines.append(f"| {name} | {shown(value['said'])} | {shown(value['named'])} | {shown(rule) if rule else ''} |")
    rules = ", ".join(f"{name} {shown(value)}" for name, value in test["textbook_false_alarms"].items())
    alarms = ", ".join(f"{text}: {n}" for text, n in test["false_alarms_by_text"].items()) or "none"
    lines += [
        f"| nothing (false alarms) | {shown(test['false_alarms'])} | | {rules} |",
        "",
        f"False alarms by what was said: {alarms}. On split val, where the threshold was chosen: "
        f"{shown(numbers['splits']['val']['false_alarms'])} %. Some of these records are truly interchanged; nobody "
        "has marked which. Limb leads that contradict each other as they are, rightly where a header scales each "
        f"lead by itself as ludb's do: {shown(test['contradictions'])} %.",
        "",
        "Left arm against left leg is not looked for: many hearts look so. An electrode on the right leg is made by "
        f"leaving {100 * LEFT_OVER:.0f} % of the lead between the legs; what it does to the chest leads is not made. "
        "Textbook's rule: every lead inverted = P and QRS of aVR up, of II down, QRS of V6 down; arms interchanged = "
        "P, QRS and T of I down, QRS of V6 up. Published figures are of other records and rules.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Fit the usual beat and write it beside the audit."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    fitted = fit(parser.parse_args().data)
    rows = ",\n  ".join(json.dumps(row) for row in fitted["precision"])
    STORED.write_text(f'{{"mean": {json.dumps(fitted["mean"])},\n "precision": [\n  {rows}\n ]}}\n')


if __name__ == "__main__":
    main()
