"""The table of findings: no code means two things."""

from collections import Counter

import pytest

from anyecg.codes import codes_of, table


def test_each_stated_code_means_one_finding() -> None:
    stated = [
        word
        for code in table().values()
        for word in {*([code.snomed] if code.snomed else []), *code.scp, *code.same_snomed, *code.words}
    ]
    assert not [word for word, n in Counter(stated).items() if n > 1]
    assert all(code.snomed is None or code.snomed.isdigit() for code in table().values())
    assert {code.kind for code in table().values()} == {"diagnosis", "rhythm", "quality"}


@pytest.mark.parametrize(
    ("stated", "meant"),
    [
        ("164889003", {"AFIB"}),
        ("AF", {"AFIB"}),
        ("713427006", {"RBBB"}),  # the challenge counts complete RBBB as RBBB
        ("ASMI", {"AMI"}),
        ("63593006", {"PAC"}),  # supraventricular premature beats
        ("", set()),
        ("0", set()),
    ],
)
def test_what_files_state(stated: str, meant: set[str]) -> None:
    assert codes_of(stated) == meant
