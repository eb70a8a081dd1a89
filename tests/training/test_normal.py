"""What is normal: fitted on normal training records only; synthetic here, for mechanics."""

import numpy as np
import pytest

from anyecg.record import Record
from anyecg.tasks.anomaly import ALL_MEASURES, UNKNOWN
from anyecg.training import normal
from anyecg.training.datasets import Entry
from anyecg.training.normal import Views, fit_reference

WIDTH = 8


def views(n, n_columns, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(3, n_columns * WIDTH))
    x = (rng.normal(size=(n, 3)) @ mixing + 0.3 * rng.normal(size=(n, n_columns * WIDTH)) + shift).reshape(
        n, n_columns, WIDTH
    )
    fragments = [one[:, None] + 0.1 * rng.normal(size=(n_columns, 5, WIDTH)) for one in x]
    measured = rng.normal(60, 5, (n, 1, len(ALL_MEASURES)))
    measured[0, 0, 3] = np.nan
    surprise = list(rng.normal(3, 0.5, (n, n_columns, 5)))
    return Views(list(x), list(measured), fragments, surprise, fragments)


def test_normal_validation_records_lie_in_the_middle_and_odd_ones_outside():
    train, validation = views(150, 2, 0), views(80, 2, 1)
    reference = fit_reference("many", ("I", "II"), 20, train, validation)
    assert reference.power.shape == (80, 2)
    assert reference.measures.shape == (80, 1, len(reference.measure_names))
    levels = [reference.embedding_levels(x, [0, 1])[0] for x in validation.per_lead]
    assert np.median(levels) == pytest.approx(0, abs=0.1)
    odd = [reference.embedding_levels(x, [0, 1])[0] for x in views(20, 2, 2, shift=3.0).per_lead]
    assert np.mean(odd) > 2
    assert reference.map_limit > 0


def test_a_direction_normal_records_vary_in_is_less_odd_than_another():
    reference = fit_reference("many", ("I", "II"), 20, views(150, 2, 0), views(80, 2, 1))
    usual = np.random.default_rng(9).normal(size=(3, 2 * WIDTH))[0].reshape(2, WIDTH)
    unusual = np.random.default_rng(10).normal(size=(2, WIDTH))
    unusual *= np.linalg.norm(usual) / np.linalg.norm(unusual)
    level = [reference.embedding_levels(reference.means + 2 * step, [0, 1])[0] for step in (usual, unusual)]
    assert level[1] > level[0] + 1


def test_only_clean_normal_records_of_their_split_are_seen(monkeypatch):
    entries = [
        Entry("db", name, "p", "train", ["I"], 10, 500.0, labels=labels, clean=clean)
        for name, labels, clean in (
            ("good", ["NORM"], True),
            ("noisy", ["NORM"], False),
            ("also ill", ["MI", "NORM"], True),
            ("ill", ["MI"], True),
        )
    ]

    class Made:
        def __init__(self, folder, split, databases):
            assert split == "train"
            self.entries = entries

        def record(self, entry, fs_hz):
            return Record(np.zeros((1, 10)), fs_hz, ("I",), id=entry.record)

    class Model:
        class checkpoint:  # noqa: N801
            class grid:  # noqa: N801
                fs_hz = 300.0

    monkeypatch.setattr(normal, "Corpus", Made)
    seen = list(normal._normal_records(Model, None, "train", "ptb-xl", ["NORM"]))
    assert [record.id for record in seen] == ["good"]


@pytest.mark.parametrize(
    ("context", "kind", "n_columns"), [("many", "known", 12), ("some", "known", 12), ("few", "known", 13)]
)
def test_each_context_shows_a_record_as_it_will_be_met(
    monkeypatch, tiny_checkpoint, make_ecg, context, kind, n_columns
):
    import anyecg
    from anyecg.leads import STANDARD_LEADS

    record = Record(make_ecg(12, 3000, 0), 300.0, STANDARD_LEADS, source_fs=500.0)
    monkeypatch.setattr(normal, "_normal_records", lambda *_: iter([record]))
    model = anyecg.load(tiny_checkpoint, threads=1)
    views = normal._see(model, None, "val", context, kind)
    assert views.per_lead[0].shape == (n_columns, 16)
    assert views.surprise[0].shape == (n_columns, 20)
    assert np.isfinite(views.per_lead[0]).all()
    assert views.measured[0].shape == (n_columns if context == "few" else 1, len(ALL_MEASURES))


def test_shuffled_leads_come_back_to_their_columns(monkeypatch, tiny_checkpoint, make_ecg):
    import anyecg
    from anyecg.leads import STANDARD_LEADS

    signal = make_ecg(12, 3000, 0) * np.linspace(0.2, 2, 12)[:, None]
    record = Record(signal, 300.0, STANDARD_LEADS, source_fs=500.0)
    monkeypatch.setattr(normal, "_normal_records", lambda *_: iter([record]))
    views = normal._see(anyecg.load(tiny_checkpoint, threads=1), None, "train", "some", "known")
    heights = [views.measured[0][0, ALL_MEASURES.index(f"{lead}_rms")] for lead in STANDARD_LEADS]
    np.testing.assert_allclose(np.argsort(heights), np.argsort(signal.std(axis=1)))


def test_an_unknown_lead_is_learnt_from_single_leads_too(monkeypatch, tiny_checkpoint, make_ecg):
    import anyecg
    from anyecg.leads import STANDARD_LEADS

    twelve = Record(make_ecg(12, 3000, 0), 300.0, STANDARD_LEADS, source_fs=500.0)
    single = Record(make_ecg(1, 9000, 1), 300.0, ("ECG",), source_fs=300.0)
    monkeypatch.setattr(
        normal, "_normal_records", lambda m, p, s, database, labels: iter([single if labels == ["N"] else twelve])
    )
    views = normal._see(anyecg.load(tiny_checkpoint, threads=1), None, "train", "few", UNKNOWN)
    assert [x.shape for x in views.per_lead] == [(1, 16), (1, 16)]
    assert not views.surprise


def test_every_context_gets_its_references_and_finds_them_again(monkeypatch, tiny_checkpoint, make_ecg, tmp_path):
    import anyecg
    from anyecg.leads import STANDARD_LEADS
    from anyecg.tasks.anomaly import load_reference, save_references

    records = [Record(make_ecg(12, 3000, i), 300.0, STANDARD_LEADS, source_fs=500.0) for i in range(4)]
    single = [record.pick(["II"]).with_(leads=("ECG",)) for record in records]
    monkeypatch.setattr(
        normal, "_normal_records", lambda m, p, s, database, labels: iter(single if labels == ["N"] else records)
    )
    references = normal.fit_references(anyecg.load(tiny_checkpoint, threads=1), None, lambda _: None)
    save_references(tmp_path, references)
    for n_leads, n_columns in ((12, 12), (3, 12), (1, 13)):
        stored = load_reference(tmp_path, n_leads)
        assert len(stored.known.leads) == n_columns
        assert stored.unknown.leads == (UNKNOWN,)
        assert np.isfinite(stored.known.factors).all()


def test_quantiles_are_of_each_column_and_need_enough_records():
    rng = np.random.default_rng(0)
    measured = rng.normal(size=(500, 2, 3)) + np.array([[0, 10, 0], [100, 0, 0]])
    measured[:300, 0, 2] = np.nan
    quantiles = normal.quantiles_of(measured)
    assert quantiles.shape == (2, 25, 3)
    assert quantiles[:, 12, :2] == pytest.approx(np.array([[0, 10], [100, 0]]), abs=0.2)
    assert np.isnan(quantiles[0, :, 2]).all() and np.isfinite(quantiles[1, :, 2]).all()
    assert (np.diff(quantiles[:, :, :2], axis=1) >= 0).all()


def test_few_leads_and_leads_without_a_name_are_compared_by_covariances():
    one, nameless, many = (
        fit_reference(context, leads, 20, views(60, 1, 0), views(40, 1, 1))
        for context, leads in (("few", ("I",)), ("few", (UNKNOWN,)), ("many", ("I",)))
    )
    n_measures = len(normal.FEW_NAMES)
    assert many.measure_covariances.shape == (0, len(normal.MANY_NAMES), len(normal.MANY_NAMES))
    for reference in (one, nameless):
        assert reference.measure_covariances.shape == (1, n_measures, n_measures)
        assert np.linalg.eigvalsh(reference.measure_covariances[0])[0] > 0
    assert many.embedding_share > one.embedding_share > nameless.embedding_share


def test_known_leads_and_lone_leads_are_compared_by_other_measures():
    assert not any(name.startswith(("best_", "rr: ")) for name in normal.MANY_NAMES)
    assert not any(name.startswith(("V1_", "qrs_axis", "sokolow")) for name in normal.FEW_NAMES)
    assert {"V1_t_over_rms", "qrs_axis_sin"} <= set(normal.MANY_NAMES) <= set(ALL_MEASURES)
    assert {"best_t_over_rms", "rr: sample entropy"} <= set(normal.FEW_NAMES) <= set(ALL_MEASURES)
    assert "beats" not in normal.MANY_NAMES + normal.FEW_NAMES
