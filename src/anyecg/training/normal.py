"""What is normal: the references of `anyecg.tasks.anomaly`, fitted on normal training records.

Labels are used to find normal records, and for nothing else: no abnormal record is looked at. Distances are put on
their scale by normal *validation* records.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from anyecg.beats import find_beats
from anyecg.engine import Model
from anyecg.leads import STANDARD_LEADS
from anyecg.record import Record
from anyecg.tasks.anomaly import (
    ALL_MEASURES,
    CONTEXTS,
    UNKNOWN,
    NormalReference,
    References,
    fragment_log_distances,
    measure_all,
    median_and_spread,
)
from anyecg.tasks.measures import AXES, BEATS, INTERVALS, LEVELS, RHYTHM, SPECTRUM, VOLTAGES, normal_scores
from anyecg.tasks.window_measures import RR, RR_BASIC, Measured
from anyecg.training.datasets import (
    NORMAL,
    SINGLE_LEAD_DATABASE,
    SINGLE_LEAD_NORMAL,
    SUPERCLASS_DATABASE,
    Corpus,
)

MOST_NORMAL = 200
"""Normal records of a database that are looked at. On validation records 100, 200, 350 and 537 of them separated normal
from abnormal equally well."""

MOST_FACTORS = {"many": 96, "some": 48, "few": 96}
"""Factors kept: more cost size and bring little."""

NOISE_SHARE = 0.3
"""Noise variance over the mean variance. From 0.03 to 1 it made no difference on validation records."""

EMBEDDING_SHARE = 1 / 3
"""How much embeddings weigh beside measures. Chosen on validation records."""

FEW_SHARE, NAMELESS_SHARE = 0.2, 0.15
"""The same for one or two leads, with and without names: what is abnormal there is mostly a rhythm, which a mean over
time hardly shows. Chosen on strips of 30 s of MIT-BIH training records, on handheld recordings, and on leads of
others whose name was withheld. Such leads are also compared by how their measures go together."""

MANY_NAMES = tuple(
    name for name in ALL_MEASURES if name != "beats" and not name.startswith("best_") and name not in RR_BASIC + RR
)
"""Measures that several known leads are compared by. The number of beats is left out everywhere: it is the record's
length. Further measures of intervals are for those whose intervals are most of what there is: here they cost .003."""

FEW_NAMES = (
    *(*RHYTHM[:-1], *BEATS, *INTERVALS, *SPECTRUM, *RR_BASIC, *RR),
    *(name for name in ALL_MEASURES if name.startswith("best_")),
)
"""Measures of one lead, or of leads without a name."""

LEAST_MEASURED = 0.5
"""Share of the normal records that must have a measure for it to count."""

HOLTER_LEAD, HOLTER_LIKE = "MLII", "II"
"""There are no normal 10 s records of the Holter lead: the limb lead it stands for is shown under its name."""

TOGETHER = 3
"""Leads shown together where there are some: a record's twelve, shuffled, make four such views."""

SURPRISE_EVERY = 3
"""Surprise is taken of every third held-out record: it costs three passes, and fragments are many."""

FRAGMENTS_OF_A_VIEW = 10
"""Fragments of a view that the fragments' distribution is fitted on."""


@dataclass
class Views:
    """Normal records as one context shows them: N records, C columns.

    ``per_lead`` (N, C, D) mean embeddings; ``measured`` (N, M, len(ALL_MEASURES)); ``fragments``, each (C, n, D), and
    ``surprise``, each (C, n) bits with ``surprised`` (C, n, D), the embeddings of the same fragments.
    """

    per_lead: list[np.ndarray] = field(default_factory=list)
    measured: list[np.ndarray] = field(default_factory=list)
    fragments: list[np.ndarray] = field(default_factory=list)
    surprise: list[np.ndarray] = field(default_factory=list)
    surprised: list[np.ndarray] = field(default_factory=list)

    def add(self, model: Model, shown: list[Record], with_surprise: bool, order: np.ndarray | None = None) -> None:
        """Embed and measure one normal record, in one view or several; ``order`` puts their leads into C columns."""
        tokens = [model.tokenize(record) for record in shown]
        order = np.arange(sum(record.n_leads for record in shown)) if order is None else order
        per_fragment = np.concatenate([model.embed(t).per_fragment for t in tokens])[order]  # (C, n_fragments, D)
        self.per_lead.append(np.nanmean(per_fragment, axis=1))
        rhythms = [find_beats(record) for record in shown]
        self.measured.append(
            np.stack([measure_all(Measured(r, b), 0.0, r.duration_s) for r, b in zip(shown, rhythms, strict=True)])
        )
        every = max(1, per_fragment.shape[1] // FRAGMENTS_OF_A_VIEW)
        self.fragments.append(per_fragment[:, ::every])
        if with_surprise:
            self.surprise.append(np.concatenate([model.surprise(t) for t in tokens])[order])
            self.surprised.append(per_fragment)


def fit_references(
    model: Model, prepared: Path, progress: Callable[[str], None], contexts: tuple[str, ...] = tuple(CONTEXTS)
) -> dict[str, References]:
    """Fit the references of some contexts, of `anyecg.tasks.anomaly.CONTEXTS`; first one that serves another."""
    windows = model.checkpoint.config["window_fragments"]
    references: dict[str, References] = {}
    for context in contexts:
        shared = CONTEXTS[context]
        each = {} if context == shared else {UNKNOWN: references[shared].unknown}
        for kind in ("known",) if each else ("known", UNKNOWN):
            progress(f"what is normal: {context} leads, {kind}")
            views = {split: _see(model, prepared, split, context, kind) for split in ("train", "val")}
            leads = (UNKNOWN,) if kind == UNKNOWN else _columns(context)
            each[kind] = fit_reference(context, leads, int(windows[shared]), views["train"], views["val"])
        references[context] = References(each["known"], each[UNKNOWN])
    return references


def _columns(context: str) -> tuple[str, ...]:
    return (*STANDARD_LEADS, HOLTER_LEAD) if context == "few" else STANDARD_LEADS


def _see(model: Model, prepared: Path, split: str, context: str, kind: str) -> Views:
    views = Views()
    for number, record in enumerate(_normal_records(model, prepared, split, SUPERCLASS_DATABASE, NORMAL)):
        with_surprise, order = split == "val" and number % SURPRISE_EVERY == 0, None
        if context == "many":
            nameless = record.with_(leads=tuple(f"lead {i + 1}" for i in range(record.n_leads)))
            shown = [nameless if kind == UNKNOWN else record]
        elif context == "some":
            shuffled = np.random.default_rng(number).permutation(record.n_leads)
            shown = [record.pick([record.leads[i] for i in part]) for part in shuffled.reshape(-1, TOGETHER)]
            order = np.argsort(shuffled)
        elif kind == UNKNOWN:  # one lead of each record, another each time
            shown = [_alone(record, record.leads[number % record.n_leads], UNKNOWN)]
        else:
            shown = [_alone(record, lead, lead) for lead in record.leads] + [_alone(record, HOLTER_LIKE, HOLTER_LEAD)]
        views.add(model, shown, with_surprise, order)
        if context == "some":
            views.measured[-1] = _merged(views.measured[-1], record)
    if (context, kind) == ("few", UNKNOWN):
        for number, record in enumerate(
            _normal_records(model, prepared, split, SINGLE_LEAD_DATABASE, SINGLE_LEAD_NORMAL)
        ):
            views.add(model, [record], split == "val" and number % SURPRISE_EVERY == 0)
    if (context, kind) == ("many", UNKNOWN):  # each third lead is a sample of the one column
        views.per_lead = [row[None] for one in views.per_lead for row in one[::3]]
        views.fragments = [row[None] for one in views.fragments for row in one[::3]]
        views.measured = [one for one in views.measured for _ in STANDARD_LEADS[::3]]
        views.surprise = [row[None] for one in views.surprise for row in one]
        views.surprised = [row[None] for one in views.surprised for row in one]
    return views


def _merged(measured: np.ndarray, record: Record) -> np.ndarray:
    """Merge the measures of several views, (n_views, Q) -> (1, Q): the first view's, and each lead's where it was.

    Axes and voltages need leads that few views hold together: they come from the whole record.
    """
    there = np.isfinite(measured)
    merged = measured[there.argmax(axis=0), np.arange(measured.shape[1])]
    whole = measure_all(Measured(record, find_beats(record)), 0.0, record.duration_s)
    chosen = [ALL_MEASURES.index(name) for name in (*AXES, *VOLTAGES)]
    merged[chosen] = whole[chosen]
    return merged[None]


def _alone(record: Record, lead: str, name: str) -> Record:
    return record.pick([lead]).with_(leads=(name,))


def _normal_records(model: Model, prepared: Path, split: str, database: str, labels: list[str]) -> Iterator[Record]:
    corpus = Corpus(prepared, split, (database,))
    normal = [e for e in corpus.entries if e.labels == labels and e.clean]
    for entry in normal[:MOST_NORMAL]:
        yield corpus.record(entry, model.checkpoint.grid.fs_hz)


def fit_reference(
    context: str, leads: tuple[str, ...], window_fragments: int, train: Views, validation: Views
) -> NormalReference:
    """Fit one reference on the views of normal training records; measure normal validation records with it."""
    few, nameless = context == "few", leads == (UNKNOWN,)
    names = FEW_NAMES if few or nameless else MANY_NAMES
    per_lead = np.stack(train.per_lead)  # (N, C, D)
    means, spreads = per_lead.mean(axis=0), per_lead.std(axis=0) + 1e-4
    z = ((per_lead - means) / spreads).reshape(len(per_lead), -1)
    _, sizes, directions = np.linalg.svd(z, full_matrices=False)
    n_factors = min(MOST_FACTORS[context], len(sizes))
    loadings = directions[:n_factors].T * (sizes[:n_factors] / np.sqrt(len(z)))
    loadings = loadings.reshape(*means.shape, n_factors).astype(np.float16).astype(np.float32)  # as it is stored

    chosen = [ALL_MEASURES.index(name) for name in names]
    quantiles = quantiles_of(np.stack(train.measured)[..., chosen])  # (M, levels, Q)
    of_validation = np.stack(validation.measured)[..., chosen]  # (N, M, Q)
    measures = np.stack([normal_scores(of_validation[:, m], quantiles[m]) for m in range(len(quantiles))], axis=1)

    fragments = np.concatenate(train.fragments, axis=1)  # (C, n, D)
    fragment_means = np.nanmean(fragments, axis=1)
    whitening = _whitening(fragments - fragment_means[:, None])
    surprise = np.concatenate(validation.surprise, axis=1)  # (C, n)
    distances = np.stack(
        [
            fragment_log_distances(own, mean, whitening)
            for own, mean in zip(np.concatenate(validation.surprised, axis=1), fragment_means, strict=True)
        ]
    )
    levels = np.array([median_and_spread(surprise), median_and_spread(distances)])
    both = np.stack([surprise, distances])
    in_map = ((both - levels[:, :1, None]) / levels[:, 1:, None]).mean(axis=0)

    reference = NormalReference(
        leads=leads,
        window_fragments=window_fragments,
        means=means,
        spreads=spreads,
        loadings=loadings,
        noise=NOISE_SHARE,
        power=np.zeros(0),
        factors=np.zeros(0),
        measure_names=names,
        measure_quantiles=quantiles,
        measures=measures,
        measure_covariances=_covariances(
            np.stack(train.measured)[..., chosen], quantiles if few or nameless else quantiles[:0]
        ),
        embedding_share=(NAMELESS_SHARE if nameless else FEW_SHARE) if few else EMBEDDING_SHARE,
        fragment_means=fragment_means,
        fragment_whitening=whitening,
        fragment_levels=levels,
        map_limit=float(np.nanquantile(in_map, 0.99)),
    )
    power, factors = reference.standardised(np.stack(validation.per_lead), list(range(len(leads))))
    return replace(reference, power=power, factors=factors)


def quantiles_of(measured: np.ndarray) -> np.ndarray:
    """Return the quantiles of measures, (N, M, Q) -> (M, len(LEVELS), Q); NaN where too few records have them."""
    quantiles = np.full((measured.shape[1], len(LEVELS), measured.shape[2]), np.nan, dtype=np.float32)
    enough = np.isfinite(measured).mean(axis=0) > LEAST_MEASURED  # (M, Q)
    for m, q in np.argwhere(enough):
        quantiles[m, :, q] = np.nanquantile(measured[:, m, q], LEVELS)
    return quantiles


def _covariances(measured: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Return the shrunk covariances of the normal scores of measures (N, M, Q): (M, Q, Q), or as few as quantiles."""
    from sklearn.covariance import LedoitWolf

    n_measures = measured.shape[-1]
    found = [LedoitWolf().fit(normal_scores(measured[:, m], q)).covariance_ for m, q in enumerate(quantiles)]
    return np.array(found).reshape(-1, n_measures, n_measures)


def _whitening(centred: np.ndarray) -> np.ndarray:
    """Return W with W W' = inverse of the shrunk covariance of vectors (n_leads, n, width)."""
    from sklearn.covariance import LedoitWolf

    vectors = centred.reshape(-1, centred.shape[-1])
    covariance = LedoitWolf(assume_centered=True).fit(vectors[np.isfinite(vectors).all(axis=1)])
    whitening: np.ndarray = np.linalg.cholesky(covariance.precision_)
    return whitening
